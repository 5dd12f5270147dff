"""Tables of ``scout eval quality`` for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from scout_core.evaluation.quality_cosine import CosineRow
from scout_core.evaluation.quality_table import PAPER_OVERLAP, QualityRow

LEFT = ("mode", "execution", "kept", "selector")
RIGHT = (
    "n",
    "F1",
    "95 %",
    "ratio",
    "95 %",
    "p",
    "against scout",
    "p",
    "recall (n)",
    "95 %",
    f"overlap (paper {PAPER_OVERLAP})",
    "payload B",
    "edge",
    "cloud",
)


def _share(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _range(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.3f}–{high:.3f}"


def quality_table(name: str, rows: Sequence[QualityRow]) -> Table:
    """One table; ``p`` is of no difference: from the whole context, then from the scout."""
    full = rows[0].f1
    title = name if full is None else f"{name}: F1 with the whole context {full:.3f}"
    shown = Table(title=title)
    for column in LEFT:
        shown.add_column(column)
    for column in RIGHT:
        shown.add_column(column, justify="right")
    for row in rows:
        recall = f"{_share(row.answer_recall)} ({row.recall_n})" if row.recall_n else ""
        against = "" if row.against_scout is None else f"{row.against_scout:+.3f}"
        shown.add_row(
            row.mode,
            row.execution,
            f"{row.retention:g}",
            row.selector,
            str(row.n),
            _share(row.f1),
            _range(row.f1_low, row.f1_high),
            _share(row.ratio),
            _range(row.ratio_low, row.ratio_high),
            _share(row.p_value, 4),
            against,
            _share(row.against_scout_p, 4),
            recall,
            _range(row.answer_recall_low, row.answer_recall_high),
            _share(row.overlap),
            f"{row.payload_bytes:.0f}",
            f"{row.edge_compute:.2f}",
            f"{row.cloud_compute:.2f}",
        )
    return shown


def cosine_table(rows: Sequence[CosineRow]) -> Table:
    """Cosine of the two models' caches, by layer."""
    shown = Table(title="cosine of the scout's and the cloud's caches")
    for column in ("layer", "keys", "values", "keys, centred", "values, centred", "tokens"):
        shown.add_column(column, justify="right")
    for row in rows:
        shown.add_row(
            "all" if row.layer is None else str(row.layer),
            _share(row.keys),
            _share(row.values),
            _share(row.centred_keys),
            _share(row.centred_values),
            str(row.tokens),
        )
    return shown

"""Tables of ``scout eval quality`` for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from scout_core.evaluation.quality_cosine import CosineRow
from scout_core.evaluation.quality_table import PAPER_OVERLAP, QualityRow
from scout_core.modes import Execution, Mode

LEFT = ("way", "kept", "selector")


def _share(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _range(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.3f}–{high:.3f}"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.3f}"


def _way(row: QualityRow) -> str:
    """The mode, and what its KV went through; of scout mode the execution."""
    if row.mode == Mode.SCOUT.value:
        return row.execution
    return f"{row.mode} {row.codec}".strip()


def _titled(title: str, columns: Sequence[str]) -> Table:
    shown = Table(title=title, box=SIMPLE_HEAD)
    for column in columns:
        shown.add_column(column, justify="left" if column in LEFT else "right")
    return shown


def answer_table(name: str, rows: Sequence[QualityRow]) -> Table | None:
    """Answers by way; ``p`` is of no difference from the whole context, or from the scout.

    None where nothing was answered.
    """
    answered = [row for row in rows if row.n]
    if not answered:
        return None
    title = f"{name}, answers: F1 with the whole context {_share(rows[0].f1)}"
    columns = ("n", "F1", "ratio", "95 %", "p", "- scout", "p")
    shown = _titled(title, (*LEFT, *columns))
    for row in answered:
        shown.add_row(
            _way(row),
            f"{row.retention:g}",
            row.selector,
            str(row.n),
            _share(row.f1),
            _share(row.ratio),
            _range(row.ratio_low, row.ratio_high),
            _share(row.p_value, 4),
            _signed(row.against_scout),
            _share(row.against_scout_p, 4),
        )
    return shown


def selection_table(name: str, rows: Sequence[QualityRow]) -> Table:
    """What the selections hold of the answer, less the scout's; overlap with the cloud's choice."""
    columns = ("n", "recall", "95 %", "- scout", "p", "overlap")
    title = f"{name}, answer recall of selections (the paper's overlap: {PAPER_OVERLAP})"
    shown = _titled(title, (*LEFT[1:], *columns))
    for row in rows:
        evicted = (row.mode, row.execution) == (Mode.SCOUT.value, Execution.EVICT.value)
        if evicted and row.retention < 1:
            shown.add_row(
                f"{row.retention:g}",
                row.selector,
                str(row.recall_n),
                _share(row.answer_recall),
                _range(row.answer_recall_low, row.answer_recall_high),
                _signed(row.recall_against_scout),
                _share(row.recall_against_scout_p, 4),
                _share(row.overlap),
            )
    return shown


def cost_table(rows: Sequence[QualityRow]) -> Table:
    """Bytes on the uplink and compute at both ends, per way."""
    columns = ("payload B", "edge", "cloud")
    shown = _titled("costs; compute relative to the cloud's full pass", (*LEFT, *columns))
    for row in rows:
        shown.add_row(
            _way(row),
            f"{row.retention:g}",
            row.selector,
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

"""Two PNG plots of a quality table: over retention, and over payload (log scale).

Needs matplotlib (evaluation extra). Knows rows only.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from scout_core.errors import SettingsError
from scout_core.evaluation.quality_table import QualityRow
from scout_core.evaluation.quality_ways import FULL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw(rows: Sequence[QualityRow], folder: Path) -> tuple[Path, Path]:
    """Writes ``quality_retention.png`` and ``quality_payload.png`` into ``folder``.

    Raises:
        SettingsError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise SettingsError("Plots need matplotlib: pip install 'scout-kv[evaluation]'.")
    folder.mkdir(parents=True, exist_ok=True)
    answered = [row for row in rows if row.ratio is not None]
    return _retention(answered, folder), _payload(answered, folder)


def _lines(rows: Sequence[QualityRow]) -> dict[tuple[str, str], list[QualityRow]]:
    lines: dict[tuple[str, str], list[QualityRow]] = {}
    for row in rows:
        if row.selector != FULL:
            lines.setdefault((row.selector, row.execution), []).append(row)
    return {key: sorted(line, key=lambda row: row.retention) for key, line in lines.items()}


def _ratio(row: QualityRow) -> float:
    return 0.0 if row.ratio is None else row.ratio


def _retention(rows: Sequence[QualityRow], folder: Path) -> Path:
    figure, axes = _sheet()
    for (selector, execution), line in _lines(rows).items():
        style = "-" if execution == "evict" else "--"
        places = [row.retention for row in line]
        axes.plot(
            places,
            [_ratio(row) for row in line],
            style,
            marker=".",
            label=f"{selector} {execution}",
        )
        if selector == "scout":
            low = [row.ratio_low or 0.0 for row in line]
            high = [row.ratio_high or 0.0 for row in line]
            axes.fill_between(places, low, high, alpha=0.15)
    axes.set_xlabel("retention (share of context positions kept)")
    axes.set_ylabel("F1 relative to the whole context")
    axes.legend(fontsize=6, ncol=2)
    return _saved(figure, folder / "quality_retention.png")


def _payload(rows: Sequence[QualityRow], folder: Path) -> Path:
    figure, axes = _sheet()
    for row in rows:
        tokens_only = row.selector == FULL and row.mode == "scout"
        if row.selector in (FULL, "scout", "cloud"):
            axes.scatter(row.payload_bytes, _ratio(row), s=30)
            how = row.codec or row.execution
            label = "tokens only" if tokens_only else f"{row.mode} {how} {row.retention:g}"
            axes.annotate(label, (row.payload_bytes, _ratio(row)), fontsize=6)
    axes.set_xscale("log")
    axes.set_xlabel("payload, bytes (mean)")
    axes.set_ylabel("F1 relative to the whole context")
    return _saved(figure, folder / "quality_payload.png")


def _sheet() -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure  # noqa: PLC0415 - an optional extra

    figure = Figure(figsize=(8, 5), layout="tight")
    return figure, figure.add_subplot()


def _saved(figure: Figure, path: Path) -> Path:
    figure.savefig(path, dpi=130)
    return path

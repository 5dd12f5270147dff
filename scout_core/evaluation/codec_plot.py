"""The rate-distortion plot of the codec study as a PNG: bits an element against KL divergence.

Owns the drawing (matplotlib, extra ``evaluation``); it computes nothing. Ours have solid lines,
peers dashed ones; exact codecs have no divergence and stand as vertical lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from scout_core.errors import SettingsError
from scout_core.evaluation.codec_study import QualityRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes


COLOURS: Final = "tab20"
"""More than there are families, so that no two look alike."""


def check_plots() -> None:
    """Raises SettingsError if matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        raise SettingsError("Plots need matplotlib: pip install 'scout-kv[evaluation]'.")


def draw(rows: Sequence[QualityRow], folder: Path) -> Path:
    """Writes ``codec_rate_distortion.png`` into ``folder``; one panel a context length.

    Raises:
        SettingsError: matplotlib is not installed.
    """
    check_plots()
    from matplotlib import colormaps  # noqa: PLC0415 - an optional extra
    from matplotlib.figure import Figure  # noqa: PLC0415 - an optional extra

    lengths = sorted({row.context_tokens for row in rows})
    figure = Figure(figsize=(7.5 * len(lengths), 6), layout="constrained")
    panels = figure.subplots(1, len(lengths), squeeze=False, sharey=True)
    for panel, length in zip(panels[0], lengths, strict=True):
        panel.set_prop_cycle(color=[colormaps[COLOURS](index) for index in range(20)])
        own = [row for row in rows if row.context_tokens == length]
        for family in dict.fromkeys(row.family for row in own):
            _curve(panel, [row for row in own if row.family == family])
        panel.set(xscale="log", yscale="log", title=f"{length:,} tokens")
        panel.set(xlabel="bits an element, side information counted", ylabel="KL divergence, nats")
        panel.legend(fontsize="x-small")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "codec_rate_distortion.png"
    figure.savefig(path, dpi=130)
    return path


def _curve(axes: Axes, rows: Sequence[QualityRow]) -> None:
    style = "-" if rows[0].origin == "ours" else "--"
    label = f"{rows[0].family} ({rows[0].origin})"
    seen = sorted((row.bits_per_element, row.kl) for row in rows if row.kl > 0)
    if seen:
        bits, divergences = zip(*seen, strict=True)
        axes.plot(bits, divergences, style, marker="o", markersize=4, label=label)
        return
    line = axes.axvline(rows[0].bits_per_element, linestyle=style, linewidth=1, label=label)
    line.set_color(axes.plot([], [])[0].get_color())

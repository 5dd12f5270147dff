"""Pictures of the policy study, as PNG files.

Owns what is drawn. Needs matplotlib (the ``evaluation`` extra).
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from scout_core.errors import SettingsError
from scout_core.evaluation.policy_links import Link
from scout_core.evaluation.policy_study import contenders
from scout_core.evaluation.policy_summary import OURS, LinkOutcomes
from scout_core.modes import Mode
from scout_core.testbed.schedule import BITS_PER_MEGABIT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CDF_FILE: Final = "latency_cdf.png"
MODES_FILE: Final = "mode_over_time.png"
LONGEST_SHOWN_S: Final = 10.0
WIDTH_INCHES: Final = 9.0
ROW_INCHES: Final = 3.2
DOTS_PER_INCH: Final = 110


def draw(results: Sequence[LinkOutcomes], links: Sequence[Link], folder: Path) -> tuple[Path, ...]:
    """Draws both pictures into ``folder`` (made if it does not exist); returns their paths.

    Raises:
        SettingsError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise SettingsError(
            "Pictures need matplotlib; install scout-kv[evaluation], or leave --plots out."
        )
    folder.mkdir(parents=True, exist_ok=True)
    return (
        _latency_cdf(results, folder / CDF_FILE),
        _mode_over_time(results, links, folder / MODES_FILE),
    )


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    """A figure with ``count`` panels, one below the other."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - an optional dependency

    figure = Figure(figsize=(WIDTH_INCHES, ROW_INCHES * count), layout="tight")
    return figure, list(figure.subplots(count, 1, squeeze=False)[:, 0])


def _latency_cdf(results: Sequence[LinkOutcomes], path: Path) -> Path:
    """One panel per pair: share of requests whose first token came within t, by policy."""
    pairs = sorted({result.pair for result in results})
    policies = [contender.name for contender in contenders()]
    figure, axes = _panels(len(pairs))
    for axis, pair in zip(axes, pairs, strict=True):
        for policy in policies:
            times = np.sort(
                [
                    outcome.ttft_s
                    for result in results
                    if (result.pair, result.policy) == (pair, policy)
                    for outcome in result.outcomes
                ]
            )
            shares = np.arange(1, len(times) + 1) / len(times)
            axis.step(times, shares, where="post", label=policy, lw=2 if policy == OURS else 1)
        axis.set(xlim=(0, LONGEST_SHOWN_S), ylim=(0, 1), title=pair, ylabel="share of requests")
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel("seconds to first token")
    axes[0].legend(fontsize="small", ncols=2, loc="lower right")
    figure.savefig(path, dpi=DOTS_PER_INCH)
    return path


def _mode_over_time(results: Sequence[LinkOutcomes], links: Sequence[Link], path: Path) -> Path:
    """Rate of one link per class, and the mode that ours chose for each request on it."""
    pair = next(result.pair for result in results)
    shown = {link.tech_class: link for link in reversed(links)}
    figure, axes = _panels(len(shown))
    modes = list(Mode)
    for axis, (tech_class, link) in zip(axes, sorted(shown.items()), strict=True):
        outcomes = [
            outcome
            for result in results
            if (result.policy, result.pair, result.link) == (OURS, pair, link.name)
            for outcome in result.outcomes
        ]
        end_s = outcomes[-1].arrival_s
        times = np.arange(0.0, end_s, max(end_s / 2000.0, 0.1))
        rates = [link.schedule.bits_between(t, t + 1.0) / BITS_PER_MEGABIT for t in times.tolist()]
        axis.plot(times, rates, lw=0.7, color="0.5")
        axis.set(title=f"{tech_class}: {link.name}", ylabel="Mbit/s")
        other = axis.twinx()
        for met, colour in ((True, "tab:blue"), (False, "tab:red")):
            chosen = [outcome for outcome in outcomes if outcome.met is met]
            other.scatter(
                [outcome.arrival_s for outcome in chosen],
                [modes.index(outcome.mode) for outcome in chosen],
                s=12,
                color=colour,
            )
        other.set_yticks(range(len(modes)), [mode.value for mode in modes])
        other.set_ylim(-0.5, len(modes) - 0.5)
    axes[-1].set_xlabel(f"seconds; blue: deadline met, red: missed ({pair})")
    figure.savefig(path, dpi=DOTS_PER_INCH)
    return path

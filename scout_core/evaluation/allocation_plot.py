"""Pictures of the allocation study as PNG files.

This module owns the drawing (matplotlib, extra ``evaluation``); it computes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from scout_core.evaluation.allocation_study import Row

mpl.use("agg")

_WIDTH, _HEIGHT = 7.0, 4.2


def plot_study(rows: Sequence[Row], paper: Sequence[Row], folder: Path) -> list[Path]:
    """Draws the paper's case and, for each setting, utility and compliance over the load."""
    folder.mkdir(parents=True, exist_ok=True)
    written = [_paper(paper, folder / "allocation_paper_case.png")] if paper else []
    settings = dict.fromkeys((row.mix, row.arrivals, row.capacity) for row in rows)
    for mix, arrivals, capacity in settings:
        chosen = [
            row
            for row in rows
            if (row.mix, row.arrivals, row.capacity) == (mix, arrivals, capacity)
        ]
        name = f"allocation_{mix}_{arrivals}_{capacity}.png"
        written.append(_over_load(chosen, f"{mix}, {arrivals}, {capacity}", folder / name))
    return written


def _paper(rows: Sequence[Row], path: Path) -> Path:
    figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
    axes = figure.subplots(1, 2)
    for allocator in dict.fromkeys(row.allocator for row in rows):
        own = [row for row in rows if row.allocator == allocator]
        agents = [row.n_agents for row in own]
        axes[0].plot(agents, [100 * row.compliance for row in own], marker="o", label=allocator)
        axes[1].plot(agents, [row.utility for row in own], marker="o", label=allocator)
    axes[0].set(xlabel="agents", ylabel="deadline compliance, %", xscale="log")
    axes[1].set(xlabel="agents", ylabel="mean utility", xscale="log")
    axes[1].legend(fontsize="x-small")
    figure.suptitle("170 tokens, 3B → 7B, 1 s, one uplink of 100 Mbit/s")
    figure.savefig(path, dpi=150)
    return path


def _over_load(rows: Sequence[Row], title: str, path: Path) -> Path:
    """One column per number of agents: utility above, compliance below."""
    agents = list(dict.fromkeys(row.n_agents for row in rows))
    figure = Figure(figsize=(2.2 * len(agents) + 1.5, 2 * _HEIGHT), layout="constrained")
    axes = figure.subplots(2, len(agents), sharey="row", squeeze=False)
    for column, n_agents in enumerate(agents):
        for allocator in dict.fromkeys(row.allocator for row in rows):
            own = [row for row in rows if (row.allocator, row.n_agents) == (allocator, n_agents)]
            loads = [row.load for row in own]
            line = axes[0, column].plot(
                loads, [row.utility for row in own], marker=".", label=allocator
            )
            low, high = [row.utility_low for row in own], [row.utility_high for row in own]
            axes[0, column].fill_between(loads, low, high, alpha=0.15, color=line[0].get_color())
            axes[1, column].plot(loads, [100 * row.compliance for row in own], marker=".")
        axes[0, column].set(title=f"n = {n_agents}", xscale="log")
        axes[1, column].set(xlabel="demand ÷ capacity", xscale="log")
    axes[0, 0].set(ylabel="mean utility")
    axes[1, 0].set(ylabel="deadline compliance, %")
    axes[0, -1].legend(fontsize="x-small")
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    return path

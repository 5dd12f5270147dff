"""``scout eval allocation``: allocators over N agents on one uplink, in virtual time.

This module owns options and output; the study is ``scout_core.evaluation.allocation_study``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TypedDict, Unpack

import click
from rich.console import Console
from rich.table import Table

from scout_core.evaluation.allocation_plot import plot_study
from scout_core.evaluation.allocation_study import (
    AGENTS,
    LOADS,
    NAMED,
    Allocator,
    Row,
    StudyPlan,
    as_documents,
    by_setting,
    paper_case,
    run_study,
)

TABLE_WIDTH = 130
"""Where the output is no terminal, lines may be longer than 80 characters."""


class Choices(TypedDict):
    """The options that say what is run."""

    agents: str
    loads: str
    requests: int
    seed: int
    paper_only: bool
    tokens: bool
    ablation: bool


@click.command(help="Allocators over N agents in virtual time.")
@click.option("--agents", default=",".join(map(str, AGENTS)), show_default=True)
@click.option("--loads", default=",".join(f"{load:g}" for load in LOADS), show_default=True)
@click.option("--requests", default=96, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
@click.option("--paper", "paper_only", is_flag=True, help="Only the paper's case.")
@click.option("--tokens", is_flag=True, help="Agents may send all token ids instead.")
@click.option("--ablation", is_flag=True, help="Adds informed equal share and constant rates.")
@click.option("--plots", type=click.Path(file_okay=False, path_type=Path), default=Path("out"))
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
def command(plots: Path, as_json: bool, **chosen: Unpack[Choices]) -> None:
    """Runs the paper's case and the grid, draws both and prints the rows."""
    plan = _plan(chosen)
    paper = paper_case(plan.allocators)
    rows = [] if chosen["paper_only"] else run_study(plan, partial(click.echo, err=True))
    pictures = plot_study(rows, paper, plots)
    if as_json:
        document = {
            "rows": as_documents(rows),
            "paper_case": as_documents(paper),
            "plots": [str(path) for path in pictures],
        }
        click.echo(json.dumps(document))
        return
    terminal = Console()
    console = Console(width=max(terminal.width, TABLE_WIDTH))
    console.print(_table(paper, "The paper's case: 170 tokens, 3B → 7B, 1 s, 100 Mbit/s"))
    for setting, own in by_setting(rows).items():
        console.print(_table(own, ", ".join(setting)))
    console.print("Plots: " + ", ".join(str(path) for path in pictures))


def _plan(chosen: Choices) -> StudyPlan:
    extra = (Allocator.INFORMED, Allocator.CONSTANT_RATE) if chosen["ablation"] else ()
    return StudyPlan(
        agents=tuple(int(number) for number in _numbers(chosen["agents"])),
        loads=_numbers(chosen["loads"]),
        requests=chosen["requests"],
        allocators=(*NAMED, *extra),
        seed=chosen["seed"],
        tokens_only=chosen["tokens"],
    )


def _numbers(text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise click.BadParameter("give numbers separated by commas") from error
    if min(numbers) <= 0:
        raise click.BadParameter("every number must be above zero")
    return numbers


def _table(rows: Sequence[Row], title: str) -> Table:
    table = Table(title=title)
    for name in ("n", "load", "allocator"):
        table.add_column(name)
    for name in ("in time", "quality", "utility", "95 %", "Jain", "rejected", "÷ optimum"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            str(row.n_agents),
            f"{row.load:g}",
            row.allocator,
            f"{row.compliance:.1%}",
            f"{row.quality:.3f}",
            f"{row.utility:.3f}",
            f"{row.utility_low:.3f}–{row.utility_high:.3f}",
            f"{row.jain_index:.3f}",
            f"{row.rejected:.1%}",
            "–" if row.optimum_ratio is None else f"{row.optimum_ratio:.4f}",
        )
    return table

"""``scout bench allocator``: milliseconds per solve and value against the exact optimum.

This module owns options and output; the measurement is ``scout_core.evaluation.allocation_bench``.
"""

from __future__ import annotations

import json
from functools import partial

import click
from rich.console import Console
from rich.table import Table

from scout_core.evaluation.allocation_bench import SIZES, BenchRow, as_documents, run_bench

TABLE_WIDTH = 150
"""Where the output is no terminal, lines may be longer than 80 characters."""
_SIZES = ",".join(str(size) for size in SIZES)


@click.command(help="Milliseconds per solve and value against the exact optimum.")
@click.option("--sizes", default=_SIZES, show_default=True, help="Numbers of agents.")
@click.option("--instances", default=204, show_default=True, type=click.IntRange(min=1))
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
def command(sizes: str, instances: int, as_json: bool) -> None:
    """Solves random instances of each size and compares with HiGHS or the linear relaxation."""
    try:
        numbers = tuple(int(size) for size in sizes.split(","))
    except ValueError as error:
        raise click.BadParameter("give whole numbers separated by commas") from error
    if min(numbers) < 1:
        raise click.BadParameter("every size must be at least 1")
    rows = run_bench(numbers, instances, partial(click.echo, err=True))
    if as_json:
        click.echo(json.dumps({"rows": as_documents(rows)}))
    else:
        terminal = Console()
        Console(width=max(terminal.width, TABLE_WIDTH)).print(_table(rows))


def _table(rows: list[BenchRow]) -> Table:
    table = Table(title="Eq. 5, one solve on one core; over time beside it")
    for name in ("agents", "instances", "ms p50", "ms p99", "ms max", "CPU ms p50", "CPU ms p99"):
        table.add_column(name, justify="right")
    table.add_column("value ÷ reference", justify="right")
    table.add_column("worst", justify="right")
    for name in ("reference", "proven", "over time ms p50", "over time gain"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            f"{row.n_agents:,}",
            str(row.instances),
            f"{row.ms_p50:.2f}",
            f"{row.ms_p99:.2f}",
            f"{row.ms_max:.2f}",
            f"{row.cpu_ms_p50:.2f}",
            f"{row.cpu_ms_p99:.2f}",
            f"{row.optimum_ratio:.6f}",
            f"{row.optimum_ratio_min:.6f}",
            row.reference,
            f"{row.proven:.0%}",
            "–" if row.over_time_ms_p50 is None else f"{row.over_time_ms_p50:.2f}",
            "–" if row.over_time_gain is None else f"{row.over_time_gain:.4f}",
        )
    return table

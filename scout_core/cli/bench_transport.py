"""``scout bench transport``: sessions beside gRPC streams and TCP, and over the emulated link.

This module owns options and output; the measurements are
``scout_core.evaluation.transport_loopback`` and ``transport_emulated``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

import click
import uvloop
from rich.console import Console
from rich.table import Table

from scout_core.cli.link import open_own_process
from scout_core.evaluation.transport_emulated import (
    EmulatedOptions,
    EmulatedRow,
    measure_emulated,
)
from scout_core.evaluation.transport_loopback import (
    LoopbackFigures,
    LoopbackOptions,
    measure_loopback,
)

MEGABYTE = 1_000_000


@click.command(name="transport")
@click.option(
    "--megabytes",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    help="Payload of each loopback upload.",
)
@click.option(
    "--turns", type=click.IntRange(min=1), default=45, show_default=True, help="Loopback turns."
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=2.0),
    default=10.0,
    show_default=True,
    help="Time at each emulated rate.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
def command(megabytes: int, turns: int, seconds: float, as_json: bool) -> None:
    """Sessions against bare gRPC, raw TCP and the emulated link."""
    report = partial(click.echo, err=True)
    loopback_options = LoopbackOptions(megabytes * MEGABYTE, turns)
    loopback = uvloop.run(measure_loopback(loopback_options, report))
    emulated = uvloop.run(
        measure_emulated(EmulatedOptions(seconds=seconds), open_own_process, report)
    )
    if as_json:
        rows = [asdict(row) for row in emulated]
        click.echo(json.dumps({"loopback": asdict(loopback), "emulated": rows}))
    else:
        console = Console()
        console.print(_loopback_table(loopback))
        console.print(_emulated_table(emulated))


def _loopback_table(figures: LoopbackFigures) -> Table:
    table = Table(title="Loopback, two processes (payload MB/s, medians)")
    for heading in ("session", "premade gRPC", "÷ premade", "bare gRPC", "÷ bare", "raw TCP"):
        table.add_column(heading, justify="right")
    table.add_row(
        f"{figures.ours_mb_s:,.0f}",
        f"{figures.premade_grpc_mb_s:,.0f}",
        f"{figures.ratio_premade:.3f}",
        f"{figures.bare_grpc_mb_s:,.0f}",
        f"{figures.ratio_grpc:.3f}",
        f"{figures.tcp_mb_s:,.0f}",
    )
    return table


def _emulated_table(rows: Sequence[EmulatedRow]) -> Table:
    table = Table(title="Emulated link, 20 ms round trip")
    for heading in ("Mbit/s", "goodput", "share", "backlog", "limit: 2 BDP + 128 KiB"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            f"{row.rate_mbps:g}",
            f"{row.goodput_mbps:.3f}",
            f"{row.ratio:.3f}",
            f"{row.backlog_bytes:,}",
            f"{row.backlog_limit_bytes:,}",
        )
    return table

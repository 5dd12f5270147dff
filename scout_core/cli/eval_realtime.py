"""``scout eval realtime``: both daemons behind a link that replays traces, in real time."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import click
import uvloop
from rich.console import Console
from rich.table import Table

from scout_core.cli.daemon_process import DaemonProcess, free_port, until_attached
from scout_core.evaluation.policy_links import Link, made_links, recorded_links
from scout_core.evaluation.realtime_requests import timed_requests
from scout_core.evaluation.realtime_study import (
    RealOutcome,
    RealtimeRow,
    link_config,
    row_of,
    run_trace,
)
from scout_core.rpc.client import InferenceClient
from scout_core.testbed.proxy import LinkEmulator

CLASSES: Final = ("3G", "LTE", "5G")
"""The classes a phone's uplink belongs to; others are left out unless there is nothing else."""
LATE_S: Final = 60.0
"""Late answers are waited for through an outage: what fails has failed, and was not given up."""


@dataclass(frozen=True, slots=True)
class _Options:
    traces: Path | None
    per_class: int
    requests: int
    seed: int
    cloud_model: str
    scout_model: str
    threads: int
    as_json: bool


@click.command("realtime")
@click.option(
    "--traces",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of traces (t_s,mbps); classes from its index. Default: made links.",
)
@click.option("--per-class", type=click.IntRange(1, 100), default=2, show_default=True)
@click.option("--requests", type=click.IntRange(1, 1_000), default=10, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Of traces and requests.")
@click.option("--cloud-model", default="bundled:smollm2-135m-qa", show_default=True)
@click.option("--scout-model", default="bundled:smollm2-135m-scout", show_default=True)
@click.option(
    "--threads",
    type=click.IntRange(0, 1024),
    default=0,
    show_default=True,
    help="Torch threads of each daemon; 1 where the processors are shared.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
def command(**options: Any) -> None:
    """Deadlines kept in real time, beside what the virtual-time twin makes of the same requests."""
    chosen = _Options(**options)
    rows, outcomes = uvloop.run(_study(chosen))
    if chosen.as_json:
        click.echo(json.dumps(_document(rows, outcomes)))
    else:
        Console(width=140).print(_table(rows))


def _links(options: _Options) -> tuple[Link, ...]:
    """The first traces of each class, by name, after a rotation by the seed."""
    found = made_links(options.seed) if options.traces is None else recorded_links(options.traces)
    picked: list[Link] = []
    for name in CLASSES:
        members = [link for link in found if link.tech_class.startswith(name)]
        offset = options.seed % max(1, len(members))
        picked += [*members[offset:], *members[:offset]][: options.per_class]
    return tuple(picked or found[: options.per_class])


async def _study(options: _Options) -> tuple[list[RealtimeRow], list[RealOutcome]]:
    links = _links(options)
    rows: list[RealtimeRow] = []
    outcomes: list[RealOutcome] = []
    async with _testbed(options, links[0]) as (client, emulator):
        for number, link in enumerate(links):
            requests = timed_requests(options.requests, f"{options.seed}-{number}")
            click.echo(f"{link.name} ({link.tech_class})", err=True)
            of_link = await run_trace(client, emulator, link, requests)
            rows.append(row_of(link, of_link))
            outcomes += of_link
    return rows, outcomes


@asynccontextmanager
async def _testbed(
    options: _Options, first: Link
) -> AsyncGenerator[tuple[InferenceClient, LinkEmulator]]:
    """Cloud, link and edge as they run in the field: two processes and a link between them."""
    cloud_port, edge_port = free_port(), free_port()
    cloud, threads = f"127.0.0.1:{cloud_port}", ("--threads", str(options.threads))
    async with (
        DaemonProcess("scout-cloud", "--listen", cloud, "--model", options.cloud_model, *threads),
        LinkEmulator(link_config(first.schedule), ("127.0.0.1", cloud_port)) as emulator,
        DaemonProcess(
            "scout-edge",
            *("--listen", f"127.0.0.1:{edge_port}", "--agent-id", "realtime"),
            *("--overdue-grace-s", str(LATE_S)),
            *("--cloud", "{}:{}".format(*emulator.address)),
            *("--cloud-model", options.cloud_model, "--scout-model", options.scout_model, *threads),
        ),
        InferenceClient(f"127.0.0.1:{edge_port}") as client,
    ):
        await until_attached(client)
        yield client, emulator


def _document(rows: Sequence[RealtimeRow], outcomes: Sequence[RealOutcome]) -> dict[str, Any]:
    count = max(1, len(outcomes))
    return {
        "rows": [_finite(asdict(row)) for row in rows],
        "requests": [
            _finite(
                {
                    "deadline_s": outcome.request.deadline_s,
                    "mode": outcome.mode.value if outcome.mode else None,
                    "ttft_s": outcome.ttft_s,
                    "twin_ttft_s": outcome.twin_ttft_s,
                    "uplink_bytes": outcome.uplink_bytes,
                    "degradation": outcome.degradation,
                    "error": outcome.error,
                }
            )
            for outcome in outcomes
        ],
        "compliance": sum(outcome.met for outcome in outcomes) / count,
        "twin_compliance": sum(outcome.twin_met for outcome in outcomes) / count,
        "failed": sum(outcome.mode is None for outcome in outcomes),
    }


def _finite(facts: dict[str, Any]) -> dict[str, Any]:
    """Infinity is not JSON: what never came has no time."""
    return {
        name: None if isinstance(value, float) and math.isinf(value) else value
        for name, value in facts.items()
    }


def _table(rows: Sequence[RealtimeRow]) -> Table:
    table = Table(title="Deadlines kept in real time, and by the virtual-time twin")
    for heading in ("trace", "class", "modes and errors"):
        table.add_column(heading, overflow="fold")
    for heading in ("n", "failed", "kept", "twin", "TTFT p50", "twin", "uplink B"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row.trace[:40],
            row.tech_class,
            " ".join(f"{name}:{count}" for name, count in (row.modes | row.errors).items()),
            str(row.requests),
            str(row.failed),
            f"{row.compliance:.0%}",
            f"{row.twin_compliance:.0%}",
            f"{row.ttft_p50_s:.2f} s",
            f"{row.twin_ttft_p50_s:.2f} s",
            f"{row.uplink_bytes_mean:,.0f}",
        )
    return table

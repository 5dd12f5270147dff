"""``scout demo``: both daemons, the emulated link and all five modes on this host."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import click
import uvloop
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from scout_core.cli.answers import Answer, ask_once
from scout_core.cli.daemon_process import DaemonProcess, free_port, until_attached
from scout_core.cli.demo_script import DemoStep, document, steps
from scout_core.modes import Mode
from scout_core.rpc.client import Ask, InferenceClient
from scout_core.testbed.link import LinkConfig
from scout_core.testbed.proxy import LinkEmulator

DOWNLINK_MBPS: Final = 100.0
ROUND_TRIP_S: Final = 0.02
SCOUT_ONLY_MBPS: Final = 0.3
"""At this rate nothing but scout mode can meet a deadline of seconds."""
SETTLE_S: Final = 4.0
"""After a step of the rate the agent probes the idle link (every second here) and learns it."""
MAX_ANSWER_TOKENS: Final = 24


@dataclass(frozen=True, slots=True)
class DemoRequest:
    """One step and its answer."""

    step: DemoStep
    answer: Answer

    @property
    def as_meant(self) -> bool:
        """Whether the request was answered in the mode it was meant to use."""
        if not self.answer.text:
            return False
        if self.step.mode is not None:
            return self.answer.mode is self.step.mode
        return self.step.uplink_mbps > SCOUT_ONLY_MBPS or self.answer.mode is Mode.SCOUT

    @property
    def correct(self) -> bool:
        return self.step.question.gold.casefold() in self.answer.text.casefold()

    def facts(self) -> dict[str, object]:
        return {
            **self.answer.facts(),
            "gold": self.step.question.gold,
            "correct": self.correct,
            "uplink_mbps": self.step.uplink_mbps,
        }


@click.command("demo")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead.")
def command(as_json: bool) -> None:
    """Run the main job on this host: a document, a link that gets worse, five modes."""
    requests = uvloop.run(run_demo(Console(stderr=True)))
    all_ok = all(request.as_meant for request in requests)
    if as_json:
        document_facts = {"requests": [r.facts() for r in requests], "all_ok": all_ok}
        click.echo(json.dumps(document_facts, ensure_ascii=False))
    else:
        Console(width=None if sys.stdout.isatty() else 160).print(results_table(requests))
    if not all_ok:
        raise click.ClickException("A request was not answered in the mode it was meant to use.")


async def run_demo(console: Console) -> list[DemoRequest]:
    """Starts everything, asks every question, stops everything."""
    requests: list[DemoRequest] = []
    with Progress(
        TextColumn("{task.description:<44}"), BarColumn(), TimeElapsedColumn(), console=console
    ) as progress:
        async with testbed(progress) as (client, link):
            task = progress.add_task("uploading the document", total=None)
            stored = await client.put_context(document())
            script = steps()
            progress.update(task, total=len(script))
            rate_mbps = 0.0
            for step in script:
                progress.update(task, description=_describe(step))
                if step.uplink_mbps != rate_mbps:
                    rate_mbps = step.uplink_mbps
                    link.set_rate(up_mbps=rate_mbps)
                    await asyncio.sleep(SETTLE_S)
                requests.append(DemoRequest(step, await _ask(client, step, stored.context_hash)))
                progress.advance(task)
    return requests


@asynccontextmanager
async def testbed(progress: Progress) -> AsyncGenerator[tuple[InferenceClient, LinkEmulator]]:
    """Cloud, link and edge; yields a client of the edge and the link."""
    loading = progress.add_task("starting", total=1.0)

    def show(stage: str, fraction: float) -> None:
        progress.update(loading, description=stage, completed=fraction)

    cloud_port, edge_port = free_port(), free_port()
    async with DaemonProcess(
        "scout-cloud", "--listen", f"127.0.0.1:{cloud_port}", on_progress=show
    ):
        config = LinkConfig.constant(100.0, DOWNLINK_MBPS, ROUND_TRIP_S)
        async with LinkEmulator(config, ("127.0.0.1", cloud_port)) as link:
            host, port = link.address
            async with DaemonProcess(
                "scout-edge",
                *("--listen", f"127.0.0.1:{edge_port}", "--cloud", f"{host}:{port}"),
                *("--agent-id", "demo", "--probe-idle-s", "1"),
                *("--probe-bytes-per-minute", str(256 * 1024 * 1024)),
                on_progress=show,
            ):
                progress.update(loading, description="models loaded", completed=1.0)
                async with InferenceClient(f"127.0.0.1:{edge_port}") as client:
                    await until_attached(client)
                    yield client, link


async def _ask(client: InferenceClient, step: DemoStep, context_hash: bytes) -> Answer:
    return await ask_once(
        client,
        Ask(
            step.question.question,
            context_hash=context_hash,
            deadline_s=step.deadline_s,
            mode=step.mode,
            retention=step.retention,
            max_tokens=MAX_ANSWER_TOKENS,
        ),
    )


def _ratio(payload_bytes: int, kv_bf16_bytes: int) -> str:
    """The payload's share of the bf16 cache; the cloud may hold the context already."""
    if payload_bytes == 0:
        return "nothing sent"
    if payload_bytes * 2 > kv_bf16_bytes:
        return f"{payload_bytes / kv_bf16_bytes:.0%}"
    return f"1 : {kv_bf16_bytes / payload_bytes:,.1f}"


def _describe(step: DemoStep) -> str:
    mode = step.mode.value if step.mode else "auto"
    return f"{mode} at {step.uplink_mbps:g} Mbit/s"


def results_table(requests: list[DemoRequest]) -> Table:
    """One row a request, for people."""
    table = Table(title="Scout demo: one document, one link that gets worse, five modes")
    for heading in ("question", "answer", "asked", "mode"):
        table.add_column(heading)
    for heading in ("kept", "payload", "of bf16 KV", "uplink", "TTFT (predicted)", "deadline"):
        table.add_column(heading, justify="right")
    for request in requests:
        answer, step = request.answer, request.step
        counts = answer.finished.bytes
        mark = "[green]✓[/]" if answer.finished.deadline_met else "[red]late[/]"
        table.add_row(
            step.question.question,
            f"{answer.text} [green]✓[/]" if request.correct else answer.text,
            step.mode.value if step.mode else "auto",
            answer.mode.value,
            f"{answer.started.retention:.0%}",
            f"{counts.payload_bytes:,} B",
            _ratio(counts.payload_bytes, counts.kv_bf16_bytes),
            f"{step.uplink_mbps:g} Mbit/s",
            f"{answer.finished.timing.ttft_s:.2f} s ({answer.started.predicted_ttft_s:.2f})",
            f"{step.deadline_s:g} s {mark}",
        )
    return table

"""Eight agents and a cloud server as processes on one link. Run:
python -m tests.bench.bench_allocation_real

Prints one JSON document: compliance and modes beside what virtual time predicts, what was delivered
per byte granted, and how much an agent that misbehaves delays the others, beside a second run in
which nobody does: that is the noise. The cloud server has a tiny random model and the agents replay
its recorded KV, because two cores cannot prefill for eight.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from scout_core.evaluation.allocation_real import (
    RealCase,
    RealRun,
    completion_change,
    figures,
    predict,
    record,
    run_real,
)
from scout_core.evaluation.allocation_recording import Recording
from scout_core.evaluation.allocation_replay import Conduct
from scout_core.testbed.link import LinkConfig
from scout_core.testbed.proxy import LinkEmulator
from scout_core.testbed.queueing import Discipline
from tests.support.daemon_process import SupervisedDaemon
from tests.support.tiny_models import save_tiny_model, tiny_engine

CONTEXT_TOKENS = 400
ROUND_TRIP_S = 0.02
DOWN_MBPS = 100.0
PAYLOAD_PART = 0.92
"""Of what the link carries; framing, acks and heartbeats take the rest."""
BYTES_PER_MEGABIT = 125_000.0
DEADLINES_S = (2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5)
RESERVE = 0.1


async def play(
    case: RealCase, server: SupervisedDaemon, recording: Path, link: LinkConfig, last: Conduct
) -> RealRun:
    """One run over a link of its own."""
    async with LinkEmulator(link, ("127.0.0.1", server.port)) as emulator:
        host, port = emulator.address
        return await run_real(case, recording, (f"{host}:{port}", server.address), last)


async def measure(
    case: RealCase, server: SupervisedDaemon, folder: Path, mbps: float, disciplines: list[str]
) -> dict[str, Any]:
    """The honest run, then per discipline two controls and the two ways of misbehaving."""
    recording = Recording.load(folder)
    constant = LinkConfig.constant(mbps, DOWN_MBPS, ROUND_TRIP_S)
    honest = await play(case, server, folder, constant, Conduct.HONEST)
    document: dict[str, Any] = {
        "predicted": predict(case, recording),
        "real": figures(case, honest),
        "misconduct": {},
    }
    others = len(case.deadlines_s) - 1
    for name in disciplines:
        link = replace(constant, discipline=Discipline(name))
        control = await play(case, server, folder, link, Conduct.IDLE)
        changes: dict[str, Any] = {}
        for label, conduct in (
            ("noise", Conduct.IDLE),
            ("floods", Conduct.FLOODS),
            ("lies", Conduct.LIES),
        ):
            run = await play(case, server, folder, link, conduct)
            changes[label] = completion_change(control, run, others)
            changes[label]["compliance"] = figures(case, run)["compliance"]
        document["misconduct"][name] = changes
    return document


@click.command()
@click.option("--mbps", default=1.5, show_default=True, help="Of the shared uplink.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--disciplines", default="fair,fifo", show_default=True, help="Empty: none.")
def main(mbps: float, rounds: int, disciplines: str) -> None:
    """Starts everything and measures."""
    capacity = PAYLOAD_PART * mbps * BYTES_PER_MEGABIT
    case = RealCase(DEADLINES_S, rounds, max(DEADLINES_S) + 0.5, capacity, RESERVE, ROUND_TRIP_S)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = save_tiny_model(folder / "model")
        record(tiny_engine(model), CONTEXT_TOKENS).save(folder)
        flags = (
            *("--model", str(model), "--threads", "1"),
            *("--uplink-capacity-bytes-per-s", json.dumps({case.group: capacity})),
            *("--uplink-deadline-reserve", str(RESERVE)),
        )
        with SupervisedDaemon("scout-cloud", folder, *flags) as server:
            wanted = [each for each in disciplines.split(",") if each]
            document = asyncio.run(measure(case, server, folder, mbps, wanted))
    sys.stdout.write(json.dumps({"mbps": mbps, "agents": len(DEADLINES_S), **document}) + "\n")


if __name__ == "__main__":
    main()

"""Eight agents and a cloud server as processes on one link. Run:
python -m tests.bench.bench_allocation_real

Prints one JSON document: at each of several rates of the link, compliance and modes beside what
virtual time predicts and what was delivered per byte granted; then how much an agent that
misbehaves delays the others, beside a second run in which nobody does: that is the noise. The cloud
server has a tiny random model and the agents replay its recorded KV, because two cores cannot
prefill for eight.
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
SIDES = ("predicted", "real")


async def play(
    case: RealCase, server: SupervisedDaemon, recording: Path, link: LinkConfig, last: Conduct
) -> RealRun:
    """One run over a link of its own."""
    async with LinkEmulator(link, ("127.0.0.1", server.port)) as emulator:
        host, port = emulator.address
        return await run_real(case, recording, (f"{host}:{port}", server.address), last)


async def misconduct(
    case: RealCase, server: SupervisedDaemon, folder: Path, mbps: float, discipline: Discipline
) -> dict[str, Any]:
    """Two runs without the last agent, and one for each way in which it misbehaves."""
    constant = LinkConfig.constant(mbps, DOWN_MBPS, ROUND_TRIP_S)
    link = replace(constant, discipline=discipline)
    control = await play(case, server, folder, link, Conduct.IDLE)
    changes: dict[str, Any] = {}
    for label, conduct in (
        ("noise", Conduct.IDLE),
        ("floods", Conduct.FLOODS),
        ("lies", Conduct.LIES),
    ):
        run = await play(case, server, folder, link, conduct)
        changes[label] = completion_change(control, run, len(case.deadlines_s) - 1)
        changes[label]["compliance"] = figures(case, run)["compliance"]
    return changes


class Bench:
    """What all runs share: the recording and how a server is started for a link."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._model = save_tiny_model(folder / "model")
        record(tiny_engine(self._model), CONTEXT_TOKENS).save(folder)

    def case(self, mbps: float, rounds: int) -> RealCase:
        capacity = PAYLOAD_PART * mbps * BYTES_PER_MEGABIT
        period_s = max(DEADLINES_S) + 0.5
        return RealCase(DEADLINES_S, rounds, period_s, capacity, RESERVE, ROUND_TRIP_S)

    def server(self, case: RealCase) -> SupervisedDaemon:
        capacities = json.dumps({case.group: case.capacity_bytes_per_s})
        flags = (
            *("--model", str(self._model), "--threads", "1"),
            *("--uplink-capacity-bytes-per-s", capacities),
            *("--uplink-round-trip-s", str(ROUND_TRIP_S)),
            *("--uplink-deadline-reserve", str(RESERVE)),
        )
        return SupervisedDaemon("scout-cloud", Path(tempfile.mkdtemp(dir=self.folder)), *flags)

    def honest(self, mbps: float, rounds: int) -> dict[str, Any]:
        """One rate: what happened beside what virtual time predicts."""
        case = self.case(mbps, rounds)
        link = LinkConfig.constant(mbps, DOWN_MBPS, ROUND_TRIP_S)
        with self.server(case) as server:
            run = asyncio.run(play(case, server, self.folder, link, Conduct.HONEST))
        predicted = predict(case, Recording.load(self.folder))
        return {"mbps": mbps, "predicted": predicted, "real": figures(case, run)}

    def misconduct(self, mbps: float, rounds: int, discipline: Discipline) -> dict[str, Any]:
        """How the last agent changes the others' completion."""
        case = self.case(mbps, rounds)
        with self.server(case) as server:
            return asyncio.run(misconduct(case, server, self.folder, mbps, discipline))


def mean_shares(rows: list[dict[str, Any]], side: str) -> dict[str, float]:
    """Mean over all rates of each mode's share."""
    modes = sorted({mode for row in rows for mode in row[side]["modes"]})
    return {
        mode: sum(row[side]["modes"].get(mode, 0.0) for row in rows) / len(rows) for mode in modes
    }


@click.command()
@click.option("--rates", default="1,1.25,1.5,2,2.5", show_default=True, help="Mbit/s; empty: none.")
@click.option("--mbps", default=1.5, show_default=True, help="Of the link under misconduct.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--disciplines", default="fair,fifo", show_default=True, help="Empty: none.")
def main(rates: str, mbps: float, rounds: int, disciplines: str) -> None:
    """Starts everything and measures."""
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name))
        rows = [bench.honest(float(rate), rounds) for rate in rates.split(",") if rate]
        document: dict[str, Any] = {"agents": len(DEADLINES_S), "rows": rows}
        if rows:
            document |= {f"mean_modes_{side}": mean_shares(rows, side) for side in SIDES}
        document["misconduct"] = {
            discipline: bench.misconduct(mbps, rounds, Discipline(discipline))
            for discipline in disciplines.split(",")
            if discipline
        }
    sys.stdout.write(json.dumps(document) + "\n")


if __name__ == "__main__":
    main()

"""Eight agents and a cloud server as processes on one link. Run:
python -m tests.bench.bench_allocation_real

Prints one JSON document: at each of several rates of the link, compliance and modes beside what
virtual time predicts and what was delivered per byte granted; then how much an agent that
misbehaves delays the others, beside pairs of runs in which nobody does: that is the noise. Each
misconduct is compared with an agent that claims the same share of the link and breaks no rule. The
cloud server has a tiny random model and the agents replay its recorded KV, because two cores cannot
prefill for eight.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from scout_core.evaluation.allocation_misconduct import completion_change
from scout_core.evaluation.allocation_prediction import predict
from scout_core.evaluation.allocation_real import (
    RealCase,
    RealRun,
    figures,
    record,
    run_real,
)
from scout_core.evaluation.allocation_recording import Recording
from scout_core.evaluation.allocation_replay import Conduct
from scout_core.modes import Mode
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
EARLY_S = 1.5
"""Deadline of one that surges: it needs credit, so it is the first in turn."""
HEAD_START_S = 0.05
"""Of a flood that has the link's first credit for itself; else who opens first is chance."""
SIDES = ("predicted", "real")


async def play(
    case: RealCase, server: SupervisedDaemon, recording: Path, link: LinkConfig, last: Conduct
) -> RealRun:
    """One run over a link of its own."""
    async with LinkEmulator(link, ("127.0.0.1", server.port)) as emulator:
        host, port = emulator.address
        return await run_real(case, recording, (f"{host}:{port}", server.address), last)


PAIRS = {
    "noise": (Conduct.IDLE, Conduct.IDLE),
    "lies": (Conduct.IDLE, Conduct.LIES),
    "floods": (Conduct.LEAVES, Conduct.FLOODS),
    "floods-first": (Conduct.LEAVES, Conduct.FLOODS),
    "surges": (Conduct.LEAVES, Conduct.SURGES),
    "overdraws": (Conduct.LEAVES, Conduct.OVERDRAWS),
    "pours": (Conduct.LEAVES, Conduct.POURS),
}
"""What is compared: the same claims on the link, without and with bytes that break the rules.
A flood is found out when its turn comes; one that opens first, at once."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is played of misconduct: the pairs, how often, and the largest message taken; None: as
    the server chooses."""

    mbps: float
    rounds: int
    pairs: tuple[str, ...]
    repetitions: int
    message_bytes: int | None


async def misconduct(
    case: RealCase, server: SupervisedDaemon, folder: Path, link: LinkConfig, plan: Plan
) -> dict[str, Any]:
    """Every pair, so many times, each time in another order."""
    runs: dict[str, tuple[list[RealRun], list[RealRun]]] = {name: ([], []) for name in plan.pairs}
    order = random.Random(0)
    for _ in range(plan.repetitions):
        plays = [(name, side) for name in plan.pairs for side in (0, 1)]
        order.shuffle(plays)
        for name, side in plays:
            played = await play(_against(case, name), server, folder, link, PAIRS[name][side])
            runs[name][side].append(played)
    honest = len(case.deadlines_s) - 1
    changes: dict[str, Any] = {}
    for name, (controls, others) in runs.items():
        changes[name] = completion_change(controls, others, honest)
        in_time = [figures(case, RealRun(run.outcomes[:honest])) for run in others]
        changes[name]["compliance"] = sum(each["compliance"] for each in in_time) / len(in_time)
        changes[name]["errors"] = _errors(controls, honest), _errors(others, honest)
    return changes


def _errors(runs: list[RealRun], honest: int) -> list[str]:
    """How requests of honest agents failed, those that were refused as well."""
    return [
        f"agent {number}, round {outcome.round}: {outcome.error}"
        for run in runs
        for number, outcomes in enumerate(run.outcomes[:honest])
        for outcome in outcomes
        if outcome.error
    ]


def _against(case: RealCase, name: str) -> RealCase:
    """The case with the last agent as the pair needs it."""
    match name:
        case "surges" | "overdraws" | "pours":
            return replace(case, deadlines_s=(*case.deadlines_s[:-1], EARLY_S))
        case "floods-first":
            return replace(case, head_start_s=HEAD_START_S)
        case _:
            return case


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

    def server(self, case: RealCase, message_bytes: int | None = None) -> SupervisedDaemon:
        capacities = json.dumps({case.group: case.capacity_bytes_per_s})
        limit = () if message_bytes is None else ("--largest-message-bytes", str(message_bytes))
        flags = (
            *("--model", str(self._model), "--threads", "1"),
            *("--uplink-capacity-bytes-per-s", capacities),
            *("--uplink-round-trip-s", str(ROUND_TRIP_S)),
            *("--uplink-deadline-reserve", str(RESERVE)),
            *limit,
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

    def misconduct(self, plan: Plan, discipline: Discipline) -> dict[str, Any]:
        """How the last agent changes the others' completion. All send int8: a claim that ends early
        leaves better modes to the others, and larger payloads come later."""
        case = replace(self.case(plan.mbps, plan.rounds), only=Mode.KV_INT8)
        constant = LinkConfig.constant(plan.mbps, DOWN_MBPS, ROUND_TRIP_S)
        link = replace(constant, discipline=discipline)
        with self.server(case, plan.message_bytes) as server:
            return asyncio.run(misconduct(case, server, self.folder, link, plan))


def mean_shares(rows: list[dict[str, Any]], side: str) -> dict[str, float]:
    """Mean over all rates of each mode's share."""
    modes = sorted({mode for row in rows for mode in row[side]["modes"]})
    return {
        mode: sum(row[side]["modes"].get(mode, 0.0) for row in rows) / len(rows) for mode in modes
    }


@click.command()
@click.option("--rates", default="1,1.25,1.5,2,2.5", show_default=True, help="Mbit/s; empty: none.")
@click.option("--mbps", default=1.75, show_default=True, help="Of the link under misconduct.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--disciplines", default="fair,fifo", show_default=True, help="Empty: none.")
@click.option("--pairs", default=",".join(PAIRS), show_default=True, help="Of misconduct.")
@click.option("--repetitions", default=3, show_default=True, help="Of every pair of runs.")
@click.option("--message-bytes", type=int, help="Largest taken; else as the server chooses.")
def main(rates: str, disciplines: str, pairs: str, **numbers: Any) -> None:
    """Starts everything and measures."""
    plan = Plan(pairs=tuple(pairs.split(",")), **numbers)
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name))
        rows = [bench.honest(float(rate), plan.rounds) for rate in rates.split(",") if rate]
        document: dict[str, Any] = {"agents": len(DEADLINES_S), "rows": rows}
        if rows:
            document |= {f"mean_modes_{side}": mean_shares(rows, side) for side in SIDES}
        document["misconduct"] = {
            discipline: bench.misconduct(plan, Discipline(discipline))
            for discipline in disciplines.split(",")
            if discipline
        }
    sys.stdout.write(json.dumps(document) + "\n")


if __name__ == "__main__":
    main()

"""Eight edge agents on one emulated uplink that cannot carry what they would like to send.

Real daemons, real grpc, tiny models; the KV of the context is prefilled, so that two cores suffice.
The link carries 1.5 Mbit/s, eight times the whole KV in bf16 takes 5.6 s of it.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from scout_core.modes import Mode
from tests.support.tiny_models import save_tiny_model
from tests.support.uplink_cell import (
    BYTES_PER_MEGABIT,
    LIKING,
    Sample,
    delivered_over_granted,
    running_cell,
    watch_shares,
)

AGENTS = 8
UP_MBPS = 1.5
DEADLINE_S = 4.5
CAPACITY = 0.92 * UP_MBPS * BYTES_PER_MEGABIT
"""Of payload: framing, acks of the other direction and heartbeats take the rest."""
RESERVE = 0.25
"""Other tests share these cores: a loop that stands still for half a second is nothing unusual."""
RATE_TOLERANCE = 0.15
LEAST_USE = 0.6
"""Of what was granted; 0.93 where nobody else computes."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("cell") / "llama")


async def test_all_are_in_time_under_the_scheduler_and_keep_to_their_shares(model: Path) -> None:
    traces: dict[str, list[Sample]] = {}
    totals: list[float] = []
    async with running_cell(
        model,
        AGENTS,
        UP_MBPS,
        capacity_bytes_per_s=CAPACITY,
        uplink_deadline_reserve=RESERVE,
    ) as cell:
        watching = asyncio.create_task(watch_shares(cell.cloud, traces, totals))
        outcomes = await cell.ask_all(DEADLINE_S)
        watching.cancel()
    assert [outcome.in_time for outcome in outcomes] == [True] * AGENTS
    # Nobody could have sent bf16 throughout, and nobody was put off with the token ids alone.
    payloads = [outcome.answered.finished.bytes.payload_bytes for outcome in outcomes]
    assert sum(payloads) <= CAPACITY * DEADLINE_S
    assert max(totals) <= CAPACITY * (1 + 1e-6)
    assert sum(LIKING[outcome.mode] for outcome in outcomes) / AGENTS > LIKING[Mode.SCOUT]
    ratios = [delivered_over_granted(trace) for trace in traces.values()]
    assert max(ratios) <= 1 + RATE_TOLERANCE
    assert sum(ratios) / AGENTS >= LEAST_USE


async def test_fewer_are_in_time_when_everybody_sends_what_it_had_chosen_for_itself(
    model: Path,
) -> None:
    async with running_cell(model, AGENTS, UP_MBPS, capacity_bytes_per_s=None) as cell:
        # What each chooses alone on the link it measured while alone, held to the end.
        outcomes = await cell.ask_all(DEADLINE_S, mode=Mode.KV_BF16)
    assert sum(outcome.in_time for outcome in outcomes) < AGENTS

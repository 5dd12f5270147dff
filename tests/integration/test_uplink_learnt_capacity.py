"""A cloud server that is not told what its uplink carries: it finds out, and follows a change.

Real daemons, real grpc, tiny models, one emulated uplink whose rate is stepped while agents ask.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

import pytest

from cloud_server.settings import LEARN
from scout_core.modes import Mode
from tests.support.tiny_models import save_tiny_model
from tests.support.uplink_cell import BYTES_PER_MEGABIT, Cell, running_cell

AGENTS = 3
SLOW_MBPS, FAST_MBPS = 0.7, 2.1
RATES_MBPS = (SLOW_MBPS, FAST_MBPS, SLOW_MBPS)
WITHIN_S = 25.0
"""A step is followed in some five seconds on an idle host; other tests share these cores."""
SETTLED_S = 2.0
"""The estimate holds for so long."""
PAYLOAD_PART = 0.92
"""Framing, checksums and heartbeats take the rest of what the link carries."""
TOLERANCE = 0.45
"""Of the median; a sawtooth belongs to learning."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("learnt") / "llama")


async def ask_on(cell: Cell) -> None:
    while True:
        await cell.ask_all(10.0, mode=Mode.KV_BF16)


async def median_mbps(cell: Cell) -> float:
    """The median estimate over ``SETTLED_S``."""
    seen: list[float] = []
    until_s = time.monotonic() + SETTLED_S
    while time.monotonic() < until_s:
        (status,) = cell.cloud.uplink.status()
        seen.append(status.capacity_bytes_per_s / BYTES_PER_MEGABIT)
        await asyncio.sleep(0.05)
    return statistics.median(seen)


async def test_an_unknown_capacity_is_found_and_steps_of_the_rate_are_followed(model: Path) -> None:
    async with running_cell(model, AGENTS, SLOW_MBPS, capacity_bytes_per_s=LEARN) as cell:
        asking = asyncio.create_task(ask_on(cell))
        for mbps in RATES_MBPS:
            cell.link.set_rate(up_mbps=mbps)
            carried = pytest.approx(PAYLOAD_PART * mbps, rel=TOLERANCE)
            async with asyncio.timeout(WITHIN_S):
                while await median_mbps(cell) != carried:
                    pass
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

"""The self-test itself: it measures what was set, and its document says so."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

import pytest

from scout_core.testbed.accuracy import (
    Placement,
    RateRow,
    RoundTripRow,
    RunningLink,
    SelfTest,
    measure_rate,
    measure_round_trip,
)
from scout_core.testbed.link import Direction, LinkConfig
from scout_core.testbed.proxy import LinkEmulator


def open_link(
    rate_mbps: float, rtt_s: float, upstream: tuple[str, int]
) -> AbstractAsyncContextManager[RunningLink]:
    return LinkEmulator(LinkConfig.constant(rate_mbps, rate_mbps, rtt_s), upstream)


@pytest.mark.parametrize("direction", list(Direction))
async def test_measured_rate_is_the_set_rate(direction: Direction) -> None:
    row = await measure_rate(open_link, Placement.IN_PROCESS, direction, 5.0, 0.5)
    assert abs(row.error_percent) < 10.0


async def test_measured_round_trip_is_the_set_one() -> None:
    row = await measure_round_trip(open_link, Placement.IN_PROCESS, 0.020, 10)
    assert 19.0 <= row.p50_ms < 40.0


def test_document_holds_every_row_and_the_worst_error() -> None:
    up = RateRow(Placement.IN_PROCESS, Direction.UP, 10.0, 9.9, 5.0)
    down = RateRow(Placement.OWN_PROCESS, Direction.DOWN, 1.0, 1.03, 5.0)
    trip = RoundTripRow(Placement.IN_PROCESS, 20.0, 20.5, 21.0)
    document = SelfTest((up, down), (trip,)).document()
    assert document["worst_error_percent"] == pytest.approx(3.0)
    assert [row["error_percent"] for row in document["rows"]] == pytest.approx([-1.0, 3.0])
    assert document["rows"][1]["direction"] == "down"
    assert document["round_trips"][0]["p95_ms"] == 21.0

"""The window rule keeps a link busy with a small backlog: shown on a simulated link.

The bounds are those of the transport bench: goodput ≥ 0.95 of the set rate and a backlog of at
most two bandwidth-delay products + 128 KiB at a 20 ms round trip.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from protocol_examples import PARAMETERS, PumpedEdge
from simulated_link import LinkShape, SimulatedLink

from scout_core.protocol.blocks import BlockKind, encode_block
from scout_core.protocol.credit import KIB, MIN_ROUND_TRIP_S, WINDOW_START_BYTES
from scout_core.protocol.events import PayloadAppended, Start
from scout_core.protocol.payload_sender import SendPolicy

BLOCK = encode_block(BlockKind.KV, 1, 0, 16, bytes(256 * KIB))


def stream(link: SimulatedLink, duration_s: float, round_trip_s: float) -> float:
    """Feeds blocks for as long as there is credit; returns acked bytes per second."""
    feeding = False

    def feed() -> None:
        nonlocal feeding
        if feeding:
            return
        feeding = True
        while link.edge.is_open and link.edge.unsent_bytes < 4 * len(BLOCK):
            link.receive_edge(PayloadAppended(BLOCK))
        feeding = False

    link.receive_edge(Start(replace(PARAMETERS, round_trip_s=round_trip_s)))
    link.on_idle_edge = feed
    feed()
    link.run(duration_s)
    return link.edge.acked_bytes / duration_s


def edge() -> PumpedEdge:
    return PumpedEdge(SendPolicy(initial_credit_bytes=WINDOW_START_BYTES))


@pytest.mark.parametrize("delivery_grid_s", [0.0, 0.005])
@pytest.mark.parametrize("rate_mbps", [1, 10, 100])
def test_window_fills_the_link_with_a_small_backlog(rate_mbps: int, delivery_grid_s: float) -> None:
    rate_bytes_per_s = rate_mbps * 1e6 / 8
    link = SimulatedLink(LinkShape(rate_bytes_per_s, 0.01, delivery_grid_s), edge())
    goodput = stream(link, 5.0, round_trip_s=0.02)
    bdp_bytes = rate_bytes_per_s * 0.02
    assert goodput / rate_bytes_per_s >= 0.95
    assert link.max_backlog_bytes <= 2 * bdp_bytes + 128 * KIB


def test_window_fills_a_fast_long_link_within_fifteen_round_trips() -> None:
    rate_bytes_per_s = 1e9 / 8
    link = SimulatedLink(LinkShape(rate_bytes_per_s, 0.01), edge())
    stream(link, 0.3, round_trip_s=0.02)
    assert link.cloud.goodput_bytes_per_s >= 0.9 * rate_bytes_per_s


def test_window_reaches_loopback_speed_though_the_round_trip_is_underestimated() -> None:
    # 800 MB/s with 256 KiB chunks and about 1.5 ms between two event loops, while the control
    # channel measured 0.3 ms.
    link = SimulatedLink(LinkShape(800e6, 0.00075), edge())
    goodput = stream(link, 0.5, round_trip_s=0.0003)
    assert goodput / 800e6 >= 0.90


def test_a_short_path_is_at_speed_before_the_shortest_round_trip_assumed_is_over() -> None:
    link = SimulatedLink(LinkShape(800e6, 0.00025), edge())
    stream(link, MIN_ROUND_TRIP_S, round_trip_s=0.0005)
    assert link.edge.acked_bytes >= 0.5 * 800e6 * MIN_ROUND_TRIP_S


@pytest.mark.parametrize("delivery_grid_s", [0.0, 0.005])
@pytest.mark.parametrize("rate_mbps", [10, 100, 1_000])
def test_a_short_path_keeps_the_backlog_of_the_shortest_round_trip_assumed(
    rate_mbps: int, delivery_grid_s: float
) -> None:
    rate_bytes_per_s = rate_mbps * 1e6 / 8
    link = SimulatedLink(LinkShape(rate_bytes_per_s, 0.001, delivery_grid_s), edge())
    stream(link, 0.5, round_trip_s=0.002)
    assert link.max_backlog_bytes <= 2 * rate_bytes_per_s * MIN_ROUND_TRIP_S + 128 * KIB


@pytest.mark.parametrize("rate_mbps", [0.3, 3, 30])
def test_allocated_rate_is_kept_whatever_the_link_could_carry(rate_mbps: float) -> None:
    rate_bytes_per_s = rate_mbps * 1e6 / 8
    link = SimulatedLink(LinkShape(100e6 / 8, 0.01), edge(), rate_bytes_per_s=rate_bytes_per_s)
    seconds = 10.0
    total = stream(link, seconds, round_trip_s=0.02) * seconds
    assert total <= WINDOW_START_BYTES + 1.001 * rate_bytes_per_s * seconds
    assert total >= 0.95 * rate_bytes_per_s * seconds


def test_window_shrinks_after_the_link_became_slow() -> None:
    link = SimulatedLink(LinkShape(100e6 / 8, 0.01), edge())

    def slow_down() -> None:
        link.shape = LinkShape(1e6 / 8, 0.01)

    link.at(1.0, slow_down)
    stream(link, 10.0, round_trip_s=0.02)
    assert link.edge.unacked_bytes <= 2 * 1e6 / 8 * 0.02 + 128 * KIB

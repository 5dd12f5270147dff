"""The link model: service, queue, delay, jitter, outages and endings, with literal times."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scout_core.errors import LocalProtocolError, SettingsError
from scout_core.testbed.bottleneck import ROUNDING_BYTES, Bottleneck, Delivery
from scout_core.testbed.link import SEGMENT_BYTES, DirectionConfig
from scout_core.testbed.queueing import Discipline, Ending, FlowId
from scout_core.testbed.schedule import RateSchedule

A, B = FlowId(1), FlowId(2)


def make(  # 8 Mbit/s is 1,000,000 bytes a second, which keeps the arithmetic readable
    mbps: float = 8.0,
    *,
    delay_s: float = 0.0,
    jitter_s: float = 0.0,
    queue_bytes: int = 1_000_000,
    discipline: Discipline = Discipline.FIFO,
    now: float = 0.0,
) -> Bottleneck:
    config = DirectionConfig(
        RateSchedule.constant(mbps), delay_s, jitter_s, queue_bytes, discipline, seed=7
    )
    return Bottleneck(config, now)


def drain(link: Bottleneck) -> list[Delivery]:
    """Run the model from event to event until nothing is left."""
    landed: list[Delivery] = []
    while (now := link.next_event_s()) < math.inf:
        link.advance(now)
        landed.extend(link.pop_due(now))
    return landed


def last_landing_s(landed: list[Delivery], flow: FlowId) -> float:
    return max(delivery.at_s for delivery in landed if delivery.flow == flow)


def test_bytes_land_after_service_and_delay() -> None:
    link = make(delay_s=0.010)
    link.enqueue(A, 100_000)
    landed = drain(link)
    assert sum(delivery.size_bytes for delivery in landed) == 100_000
    assert landed[-1].at_s == pytest.approx(0.110)


def test_idle_time_is_not_saved_up() -> None:
    link = make()
    link.advance(5.0)
    link.enqueue(A, 1_000)
    assert drain(link)[-1].at_s == pytest.approx(5.001)


def test_time_starved_by_the_caller_is_not_lost() -> None:
    link = make()
    link.enqueue(A, 1_000)
    link.advance(0.005, busy_since_s=0.0)
    link.enqueue(A, 1_000)
    assert drain(link)[-1].at_s == pytest.approx(0.002)


def test_late_advance_does_not_lose_rate() -> None:
    link = make()
    link.enqueue(A, 1_000_000)
    now, landed = 0.0, list[Delivery]()
    for step_s in (0.0013, 0.0401, 0.0007, 0.2, 0.003) * 10:
        now += step_s
        link.advance(now)
        landed.extend(link.pop_due(now))
    landed.extend(drain(link))
    assert landed[-1].at_s == pytest.approx(1.0, abs=1e-9)


def test_room_shrinks_with_the_queue_and_returns_with_service() -> None:
    link = make(queue_bytes=10_000)
    assert link.room_bytes(A) == 10_000
    link.enqueue(A, 10_000)
    assert link.room_bytes(A) == 0
    assert link.room_bytes(B) == 0
    link.advance(0.005)
    assert link.room_bytes(B) == pytest.approx(5_000, abs=SEGMENT_BYTES)


def test_rate_change_in_mid_transfer_is_exact() -> None:
    link = make()
    link.enqueue(A, 1_000_000)
    link.set_schedule(RateSchedule.constant(0.8), 0.5)
    assert drain(link)[-1].at_s == pytest.approx(0.5 + 5.0)


def test_many_rate_changes_lose_nothing() -> None:
    link = make(0.08)
    link.enqueue(A, 10_000)
    for index in range(1, 1000):
        link.set_schedule(RateSchedule.constant(0.08), index * 0.001)
    assert drain(link)[-1].at_s == pytest.approx(1.0, abs=1e-6)


def test_outage_stops_service_but_not_what_is_on_its_way() -> None:
    link = make(delay_s=0.050)
    link.enqueue(A, 100_000)
    link.start_outage(2.0, 0.060)
    assert link.rate_mbps(1.0) == 0.0
    landed = drain(link)
    before = sum(delivery.size_bytes for delivery in landed if delivery.at_s <= 0.120)
    assert before == pytest.approx(60_000, abs=2 * SEGMENT_BYTES)
    assert landed[-1].at_s == pytest.approx(2.150)


def test_outage_of_an_idle_link_delays_the_next_bytes() -> None:
    link = make()
    link.start_outage(1.0, 0.5)
    link.advance(0.6)
    link.enqueue(A, 1_000)
    assert drain(link)[-1].at_s == pytest.approx(1.501)


def test_fifo_serves_in_order_of_arrival() -> None:
    link = make()
    link.enqueue(A, 500_000)
    link.enqueue(B, 1_000)
    landed = drain(link)
    assert last_landing_s(landed, B) == pytest.approx(0.501)


def test_fair_queueing_lets_a_small_flow_pass() -> None:
    link = make(discipline=Discipline.FAIR)
    link.enqueue(A, 500_000)
    link.enqueue(B, 1_000)
    landed = drain(link)
    assert last_landing_s(landed, B) < 0.005
    assert last_landing_s(landed, A) == pytest.approx(0.501)


def test_fair_flows_share_equally() -> None:
    link = make(discipline=Discipline.FAIR)
    link.enqueue(A, 400_000)
    link.enqueue(B, 200_000)
    landed = drain(link)
    assert last_landing_s(landed, B) == pytest.approx(0.400, abs=0.003)
    assert last_landing_s(landed, A) == pytest.approx(0.600, abs=0.003)


@pytest.mark.parametrize("discipline", list(Discipline))
@pytest.mark.parametrize("ending", list(Ending))
def test_ending_follows_the_last_byte(discipline: Discipline, ending: Ending) -> None:
    link = make(delay_s=0.010, discipline=discipline)
    link.enqueue(A, 3_000)
    link.enqueue(A, 0, ending)
    landed = drain(link)
    assert [delivery.ending for delivery in landed] == [None] * (len(landed) - 1) + [ending]
    assert landed[-1].at_s == pytest.approx(0.013)


@pytest.mark.parametrize("discipline", list(Discipline))
def test_dropped_flow_is_forgotten_and_the_other_kept(discipline: Discipline) -> None:
    link = make(delay_s=0.100, discipline=discipline)
    link.enqueue(A, 50_000)
    link.enqueue(B, 7_000)
    link.advance(0.020)
    link.drop_flow(A)
    landed = drain(link)
    assert {delivery.flow for delivery in landed} == {B}
    assert sum(delivery.size_bytes for delivery in landed) == 7_000
    assert link.backlog_bytes == 0
    assert link.flying_bytes == 0


def test_jitter_delays_within_its_bound_and_never_overtakes() -> None:
    link = make(delay_s=0.020, jitter_s=0.015)
    landed: list[Delivery] = []
    for index in range(200):
        now = index * 0.010
        link.advance(now)
        link.enqueue(A, 10)
        landed.extend(link.pop_due(now))
    landed.extend(drain(link))
    delays = [delivery.at_s - index * 0.010 for index, delivery in enumerate(landed)]
    assert min(delays) >= 0.020
    assert max(delays) <= 0.0351
    assert max(delays) - min(delays) > 0.010
    assert all(a.at_s <= b.at_s for a, b in pairwise(landed))


def test_jitter_is_a_function_of_seed_and_time() -> None:
    def landing(advance_s: float) -> float:
        link = make(jitter_s=0.015)
        link.enqueue(A, 100_000)
        now = 0.0
        while link.backlog_bytes:
            now += advance_s
            link.advance(now)
        return drain(link)[-1].at_s

    assert landing(0.001) == pytest.approx(landing(0.0173), abs=1e-9)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([A, B]),
            st.integers(min_value=1, max_value=50_000),
            st.floats(min_value=0.0, max_value=0.2),
        ),
        min_size=1,
        max_size=20,
    ),
    st.sampled_from(list(Discipline)),
    st.floats(min_value=0.1, max_value=1000.0),
)
def test_no_byte_is_lost_made_up_or_early(
    arrivals: list[tuple[FlowId, int, float]], discipline: Discipline, mbps: float
) -> None:
    link = make(mbps, delay_s=0.005, discipline=discipline, now=1e6)
    now, landed = 1e6, list[Delivery]()
    for flow, size_bytes, gap_s in arrivals:
        now += gap_s
        link.advance(now)
        landed.extend(link.pop_due(now))
        link.enqueue(flow, size_bytes)
    landed.extend(drain(link))
    for flow in (A, B):
        sent = sum(size for sender, size, _ in arrivals if sender == flow)
        assert sum(item.size_bytes for item in landed if item.flow == flow) == sent
    total_s = sum(size for _, size, _ in arrivals) * 8 / (mbps * 1e6)
    # The piece that an arrival cuts may be early by a rounding.
    early_s = len(arrivals) * ROUNDING_BYTES * 8 / (mbps * 1e6)
    assert landed[-1].at_s >= 1e6 + 0.005 + total_s - early_s - 1e-6


def test_misuse_and_bad_settings_are_refused() -> None:
    with pytest.raises(LocalProtocolError, match="at least one byte"):
        make().enqueue(A, 0)
    with pytest.raises(SettingsError, match="queue_bytes"):
        make(queue_bytes=10)
    with pytest.raises(SettingsError, match="delay_s"):
        make(delay_s=-1.0)
    with pytest.raises(SettingsError, match="outage"):
        make().start_outage(math.inf, 0.0)

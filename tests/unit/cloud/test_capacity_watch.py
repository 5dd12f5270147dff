"""What the cloud concludes from its sessions about an uplink whose capacity nobody told it."""

from __future__ import annotations

import pytest

from cloud_server.capacity_watch import FIRST_GUESS_BYTES_PER_S, CapacityWatch, learnt_capacity
from cloud_server.offers import Alternative
from cloud_server.scheduled_session import Opening, ScheduledSession
from cloud_server.seats import UplinkSeat
from scout_core.allocation.capacity import CapacityObservation
from scout_core.allocation.group import GroupStatus
from scout_core.allocation.offer import GroupId, Offer
from scout_core.modes import AgentId, Mode, SessionId, TenantId
from scout_core.protocol import events
from scout_core.protocol.opening import ContextState

GROUP = GroupId("cell")
CAPACITY = 1_000_000.0
ROUND_TRIP_S = 0.05


class Flow:
    """A session whose credit runs at its rate and whose bytes arrive at another."""

    def __init__(self, name: str, rate: float, arrives: float, group: GroupId = GROUP) -> None:
        self.received_bytes = self.credit_bytes = 0
        self.is_suspended = False
        self.switches: tuple[events.SwitchReceived, ...] = ()
        self.rate, self.arrives = rate, arrives
        seat = UplinkSeat(AgentId(name), TenantId("t"), group, lambda _: None)
        way = Alternative(Offer(Mode.KV_BF16, 1.0, 100_000_000, 1.0), None)
        accept = events.AcceptDecided(ContextState.ABSENT)
        opening = Opening(
            seat.tenant, seat.agent, SessionId("s"), 9.0, (way,), 0, 1 << 40, accept, ROUND_TRIP_S
        )
        self.session = ScheduledSession(opening, seat, self, 0.0, (way,), 0, accepted=True)
        self.session.rate_bytes_per_s = rate

    def promised_bytes(self, now: float) -> int:
        return self.credit_bytes

    def post(self, event: events.CloudEvent) -> None:
        raise AssertionError("a watch only looks")

    def at(self, now: float) -> None:
        self.received_bytes = int(self.arrives * now)
        self.credit_bytes = int(self.rate * (now + ROUND_TRIP_S))


def watch(*flows: Flow, seconds: float = 2.0, group: GroupId = GROUP) -> list[CapacityObservation]:
    watching = CapacityWatch(frozenset({group}))
    status = GroupStatus(GROUP, CAPACITY, CAPACITY, len(flows), 0, 0.0, 0.0)
    seen: list[CapacityObservation] = []
    for tick in range(1, round(seconds / 0.1) + 1):
        for flow in flows:
            flow.at(0.1 * tick)
        sessions = [flow.session for flow in flows]
        seen += [it.observation for it in watching.samples(sessions, (status,), 0.1 * tick)]
    return seen


def test_what_is_granted_and_arrives_at_once_is_a_saturated_link_without_a_queue() -> None:
    seen = watch(Flow("a", 600_000.0, 600_000.0), Flow("b", 400_000.0, 400_000.0))
    assert len(seen) >= 7
    assert all(each.saturated and each.queueing_delay_s == 0.0 for each in seen)
    assert seen[-1].goodput_bytes_per_s == pytest.approx(CAPACITY, rel=1e-3)


def test_a_link_that_carries_half_shows_half_and_a_growing_delay() -> None:
    seen = watch(Flow("a", 600_000.0, 300_000.0), Flow("b", 400_000.0, 200_000.0))
    assert seen[-1].goodput_bytes_per_s == pytest.approx(CAPACITY / 2, rel=1e-3)
    delays = [each.queueing_delay_s for each in seen]
    assert delays == sorted(delays)
    # Two seconds of credit at twice the rate of arrival: two seconds of queue.
    assert delays[-1] == pytest.approx(2.0, abs=0.3)


def test_one_slow_edge_among_others_is_no_queue() -> None:
    seen = watch(Flow("slow", 100_000.0, 20_000.0), Flow("b", 900_000.0, 900_000.0))
    assert all(each.queueing_delay_s == 0.0 for each in seen)


def test_sessions_that_were_granted_little_say_nothing_about_the_capacity() -> None:
    assert watch(Flow("a", 300_000.0, 300_000.0)) == []


def test_a_session_that_has_not_begun_or_is_about_to_end_says_nothing() -> None:
    silent, ending = Flow("silent", 1_000_000.0, 0.0), Flow("ending", 1_000_000.0, 500_000.0)
    ending.session.alternatives = (Alternative(Offer(Mode.KV_BF16, 1.0, 40_000, 1.0), None),)
    assert watch(silent) == []
    assert watch(ending) == []


def test_groups_with_a_configured_capacity_are_not_watched() -> None:
    assert watch(Flow("a", 1e6, 5e5), group=GroupId("elsewhere")) == []


def test_learning_starts_low_and_learns() -> None:
    policy = learnt_capacity()
    assert policy.learns
    assert policy.initial_bytes_per_s == FIRST_GUESS_BYTES_PER_S

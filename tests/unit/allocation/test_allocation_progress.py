"""What has arrived, what was promised, and who has the share meanwhile."""

from __future__ import annotations

import pytest

from scout_core.allocation.events import (
    AgentHeard,
    CapacityConfigured,
    Reject,
    ReportKind,
    RequestPaused,
    RequestProgress,
    RequestPromised,
    RequestSwitched,
)
from scout_core.allocation.policy import SchedulerPolicy
from scout_core.modes import Mode
from tests.support.allocation_cases import GROUP, ask, attach, grants, offer, reports, scheduler


def test_bytes_already_received_make_the_rest_of_a_whole_kv_offer_cheaper() -> None:
    uplink = scheduler(1_000_000.0)
    agent = attach(uplink, "a")
    session = ask(uplink, "s", agent, 0.0)
    uplink.tick(0.0)
    uplink.receive(RequestProgress(session, 500_000), 0.5)
    # Half of bf16 is there; 250 kB/s in 0.5 s carry half of int4 (125 kB), not half of bf16.
    (grant,) = grants(uplink.receive(CapacityConfigured(GROUP, 251_000.0), 0.5)).values()
    assert grant.mode is Mode.KV_INT4
    uplink.receive(RequestSwitched(session, grant.offer), 0.5)
    assert uplink.receive(RequestProgress(session, 620_000), 0.98) == ()


def test_a_begun_request_never_waits_for_ever_whatever_offer_it_is_granted() -> None:
    """All of the KV is there by its declared size, the agent falls back to a cheaper coding, and
    more comes than was declared: there is no offer under which nothing is left to send."""
    uplink = scheduler(1_000_000.0)
    session = ask(uplink, "s", attach(uplink, "a"), 0.0, deadline_s=3.0)
    uplink.tick(0.0)
    uplink.receive(RequestSwitched(session, 2), 0.1)
    uplink.receive(RequestProgress(session, 250_000), 0.4)
    for now in (0.5, 0.6, 0.7):
        uplink.receive(RequestSwitched(session, 2), now)
        uplink.tick(now)
        assert uplink.rate_bytes_per_s(session, now) > 0


def test_who_was_promised_all_it_needs_makes_way_for_the_next_before_the_bytes_are_there() -> None:
    uplink = scheduler(1_000_000.0, policy=SchedulerPolicy(planning_margin=0.0))
    only = (offer(Mode.SCOUT, 250_000, 0.8),)
    first = ask(uplink, "first", attach(uplink, "a"), 0.0, offers=only, deadline_s=0.3)
    second = ask(uplink, "second", attach(uplink, "b"), 0.0, offers=only, deadline_s=0.6)
    rates = grants(uplink.tick(0.0))
    assert rates[first].rate_bytes_per_s > 800_000
    uplink.receive(RequestPromised(first, 250_000), 0.25)
    uplink.receive(RequestProgress(first, 230_000), 0.25)
    rates = grants(uplink.tick(0.25))
    assert rates[first].rate_bytes_per_s == 0.0
    assert rates[second].rate_bytes_per_s == pytest.approx(1_000_000.0)
    # All that it declared is there, and it goes on: credit on its way does not starve the tail.
    uplink.receive(RequestProgress(first, 250_000), 0.28)
    uplink.receive(RequestPromised(first, 250_500), 0.28)
    assert grants(uplink.tick(0.36))[first].rate_bytes_per_s > 100_000


def test_bytes_on_their_way_count_as_sent() -> None:
    """What was promised crosses whatever is chosen now: only the rest can be coded anew."""
    uplink = scheduler(1_000_000.0)
    session = ask(uplink, "s", attach(uplink, "a"), 0.0)
    uplink.tick(0.0)
    uplink.receive(RequestPromised(session, 600_000), 0.6)
    uplink.receive(RequestProgress(session, 500_000), 0.6)
    # 400 kB are left of bf16, 200 kB of int8, 100 kB of int4; 0.4 s carry 210 kB.
    (grant,) = grants(uplink.receive(CapacityConfigured(GROUP, 525_000.0), 0.6)).values()
    assert grant.mode is Mode.KV_INT8


def test_who_was_promised_all_it_needs_is_not_late_while_the_last_bytes_arrive() -> None:
    uplink = scheduler(1_000_000.0)
    only = (offer(Mode.SCOUT, 250_000, 0.8, cloud_s=0.1),)
    session = ask(uplink, "s", attach(uplink, "a"), 0.0, deadline_s=0.35, offers=only)
    uplink.tick(0.0)
    uplink.receive(RequestPromised(session, 250_000), 0.25)
    uplink.receive(RequestProgress(session, 200_000), 0.25)
    assert reports(uplink.tick(0.3)) == []
    assert reports(uplink.tick(0.41)) == [ReportKind.DEADLINE_LOST]


def test_a_block_that_was_begun_may_be_finished_before_its_agent_turns_to_indices() -> None:
    """Under indices little is left to promise, but the block has more, of a size nobody knows."""
    uplink = scheduler(1_000_000.0)
    session = ask(uplink, "s", attach(uplink, "a"), 0.0)
    uplink.tick(0.0)
    uplink.receive(RequestPromised(session, 10_000), 0.01)
    uplink.receive(RequestProgress(session, 10_000), 0.01)
    (grant,) = grants(uplink.receive(CapacityConfigured(GROUP, 100_000.0), 0.01)).values()
    assert grant.mode is Mode.SCOUT
    uplink.receive(RequestPromised(session, 12_000), 0.1)
    uplink.tick(0.2)
    assert uplink.rate_bytes_per_s(session, 0.2) == pytest.approx(100_000.0)
    # Not for ever: who does not turn sends no more than was tolerated.
    uplink.receive(RequestPromised(session, 10_000 + 500_000), 0.25)
    uplink.tick(0.31)
    assert uplink.rate_bytes_per_s(session, 0.31) == pytest.approx(2_000.0)


def test_who_has_credit_and_sends_nothing_lends_its_share_until_it_sends() -> None:
    uplink = scheduler(1_000_000.0)
    first, second = attach(uplink, "a"), attach(uplink, "b")
    silent = ask(uplink, "silent", first, 0.0, deadline_s=3.0)
    other = ask(uplink, "other", second, 0.0, deadline_s=4.0)
    uplink.tick(0.0)
    uplink.receive(RequestPromised(silent, 30_000), 0.03)
    now = 0.03
    while now < 0.9:
        now += 0.1
        uplink.receive(AgentHeard(first), now)
        uplink.receive(AgentHeard(second), now)
        uplink.tick(now)
        rates = [uplink.rate_bytes_per_s(session, now) for session in (silent, other)]
        assert rates[0] > 500_000.0 if now < 0.55 else rates == [0.0, pytest.approx(1_000_000.0)]
    uplink.receive(RequestProgress(silent, 10_000), now + 0.1)
    uplink.tick(now + 0.1)
    assert uplink.rate_bytes_per_s(silent, now + 0.1) > 500_000.0


def test_the_next_solve_is_when_the_first_will_have_been_promised_all() -> None:
    uplink = scheduler(1_000_000.0, policy=SchedulerPolicy(planning_margin=0.0))
    ask(uplink, "s", attach(uplink, "a"), 0.0, offers=(offer(Mode.SCOUT, 40_000, 0.8),))
    uplink.tick(0.0)
    assert uplink.next_deadline() == pytest.approx(0.04, abs=0.002)


@pytest.mark.parametrize("paused", [False, True])
def test_for_a_late_request_without_a_stream_nothing_is_kept(paused: bool) -> None:
    """Of 1 MB/s five late ones keep 10 kB/s, while credit reaches them."""
    uplink = scheduler()
    for number in range(5):
        agent = attach(uplink, f"a{number}")
        lost = ask(uplink, f"lost-{number}", agent, 0.0)
        uplink.tick(0.0)
        uplink.receive(RequestPaused(lost, paused), 0.1)
        uplink.receive(AgentHeard(agent), 1.4)
    uplink.tick(1.5)
    (status,) = uplink.status(1.5)
    assert status.late == 5
    nearly_all = (offer(Mode.KV_BF16, 995_000, 1.0),)
    new = ask(uplink, "new", attach(uplink, "b", 1.5), 1.5, offers=nearly_all)
    rejected = [action.session for action in uplink.tick(1.5) if isinstance(action, Reject)]
    assert rejected == ([] if paused else [new])

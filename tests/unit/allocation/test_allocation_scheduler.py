"""The scheduler behind its events: what it promises at every instant."""

from __future__ import annotations

import pytest

from scout_core.allocation.capacity import CapacityObservation
from scout_core.allocation.events import (
    AgentHeard,
    CapacityConfigured,
    CapacitySample,
    Grant,
    Reject,
    RejectCause,
    ReportKind,
    RequestArrived,
    RequestFinished,
    RequestProgress,
    RequestSwitched,
)
from scout_core.allocation.offer import Priority, TenantPolicy
from scout_core.allocation.policy import SchedulerPolicy
from scout_core.errors import LocalProtocolError, RemoteProtocolError
from scout_core.modes import AgentId, Mode, SessionId, TenantId
from tests.support.allocation_cases import (
    GROUP,
    LADDER,
    ask,
    attach,
    grants,
    offer,
    reports,
    scheduler,
)


def test_alone_an_agent_gets_its_best_offer_and_the_whole_uplink() -> None:
    uplink = scheduler(2_000_000.0)
    session = ask(uplink, "s", attach(uplink, "a"), 0.0)
    (grant,) = uplink.tick(0.0)
    assert isinstance(grant, Grant)
    assert (grant.session, grant.mode) == (session, Mode.KV_BF16)
    assert grant.rate_bytes_per_s == pytest.approx(2_000_000.0)


def test_under_congestion_the_best_use_is_made_of_the_uplink() -> None:
    uplink = scheduler(1_000_000.0)
    for number in range(4):
        ask(uplink, f"s{number}", attach(uplink, f"a{number}"), 0.0)
    modes = sorted(grant.mode.value for grant in grants(uplink.tick(0.0)).values())
    # Value per byte falls along the ladder: four int4 fill 1 MB/s exactly.
    assert modes == ["kv_int4"] * 4


def test_scout_is_the_floor_and_nobody_is_refused_while_indices_fit() -> None:
    uplink = scheduler(50_000.0)
    for number in range(100):
        ask(uplink, f"s{number}", attach(uplink, f"a{number}"), 0.0)
    actions = uplink.tick(0.0)
    assert len(grants(actions)) == 100
    assert not any(isinstance(action, Reject) for action in actions)


def test_when_floors_do_not_fit_the_one_with_least_to_lose_is_told_at_once() -> None:
    uplink = scheduler(1_000.0)
    only = (offer(Mode.SCOUT, 600, 0.8),)
    kept = ask(uplink, "kept", attach(uplink, "a"), 0.0, offers=only)
    lost = ask(uplink, "lost", attach(uplink, "b"), 0.0, offers=only, priority=Priority.BACKGROUND)
    actions = uplink.tick(0.0)
    (rejection,) = [action for action in actions if isinstance(action, Reject)]
    assert rejection.session == lost
    assert rejection.cause is RejectCause.CAPACITY
    # 400 bytes/s are left beside the other: 600 bytes take 1.5 s, sooner than waiting for it.
    assert rejection.retry_at_s == 0.0
    assert rejection.earliest_at_s == pytest.approx(1.5)
    assert set(grants(actions)) == {kept}


def test_who_comes_back_at_the_time_told_is_served_by_the_time_told() -> None:
    uplink = scheduler(1_000.0)
    only = (offer(Mode.SCOUT, 600, 0.8),)
    ask(uplink, "first", attach(uplink, "a"), 0.0, offers=only)
    late = attach(uplink, "b")
    ask(uplink, "second", late, 0.0, offers=only, priority=Priority.BACKGROUND)
    (rejection,) = [action for action in uplink.tick(0.0) if isinstance(action, Reject)]
    now = rejection.retry_at_s
    again = ask(
        uplink, "again", late, now, offers=only, deadline_s=rejection.earliest_at_s - now + 1e-6
    )
    assert again in grants(uplink.tick(now))


def test_a_deadline_beyond_the_whole_uplink_is_rejected_as_such() -> None:
    uplink = scheduler(1_000.0)
    ask(uplink, "s", attach(uplink, "a"), 0.0, offers=(offer(Mode.SCOUT, 5_000, 0.8),))
    (rejection,) = uplink.tick(0.0)
    assert isinstance(rejection, Reject)
    assert rejection.cause is RejectCause.DEADLINE
    assert rejection.earliest_at_s == pytest.approx(5.0)


def test_a_dead_agents_share_is_free_within_one_lease() -> None:
    uplink = scheduler(1_000_000.0, policy=SchedulerPolicy(planning_margin=0.0, lease_s=0.5))
    dead, alive = attach(uplink, "dead"), attach(uplink, "alive")
    ask(uplink, "d", dead, 0.0, deadline_s=5.0)
    lives = ask(uplink, "l", alive, 0.0, deadline_s=5.0)
    uplink.tick(0.0)
    now, seen = 0.0, list[ReportKind]()
    while now < 0.5:
        now = min(now + 0.1, 0.5)
        uplink.receive(AgentHeard(alive), now)
        seen += reports(uplink.tick(now))
    assert ReportKind.LEASE_EXPIRED in seen
    assert uplink.rate_bytes_per_s(lives, now) == pytest.approx(1_000_000.0)


def test_an_agent_heard_again_gets_its_share_back() -> None:
    uplink = scheduler(policy=SchedulerPolicy(planning_margin=0.0, lease_s=0.5))
    agent = attach(uplink, "a")
    session = ask(uplink, "s", agent, 0.0, deadline_s=5.0)
    uplink.tick(0.0)
    uplink.tick(0.5)
    assert uplink.rate_bytes_per_s(session, 0.5) == 0.0
    uplink.receive(AgentHeard(agent), 1.0)
    uplink.tick(1.0)
    assert uplink.rate_bytes_per_s(session, 1.0) > 0.0


def test_a_lease_is_renewed_while_the_agent_is_heard() -> None:
    uplink = scheduler()
    agent = attach(uplink, "a")
    session = ask(uplink, "s", agent, 0.0, deadline_s=60.0)
    now = 0.0
    for _ in range(40):
        uplink.receive(AgentHeard(agent), now)
        uplink.tick(now)
        assert uplink.rate_bytes_per_s(session, now) > 0
        now += 0.1


def test_a_fall_of_the_capacity_takes_shares_at_once() -> None:
    uplink = scheduler()
    ask(uplink, "s", attach(uplink, "a"), 0.0)
    uplink.tick(0.0)
    actions = uplink.receive(CapacityConfigured(GROUP, 10_000.0), 0.01)
    (grant,) = grants(actions).values()
    assert grant.rate_bytes_per_s <= 10_000.0
    assert grant.mode is Mode.SCOUT


def test_a_learnt_fall_takes_shares_at_once_too() -> None:
    uplink = scheduler(learns=True)
    ask(uplink, "s", attach(uplink, "a"), 0.0, deadline_s=2.0)
    uplink.tick(0.0)
    sample = CapacityObservation(200_000.0, 0.2, True, 0.1)
    actions = uplink.receive(CapacitySample(GROUP, sample), 0.1)
    assert sum(grant.rate_bytes_per_s for grant in grants(actions).values()) <= 180_000.0 + 1


def test_a_running_request_that_cannot_be_in_time_is_reported_and_finished_all_the_same() -> None:
    uplink = scheduler()
    agent = attach(uplink, "a")
    only = (offer(Mode.KV_BF16, 900_000, 1.0),)
    session = ask(uplink, "s", agent, 0.0, offers=only)
    uplink.tick(0.0)
    actions = uplink.receive(CapacityConfigured(GROUP, 100_000.0), 0.1)
    assert reports(actions) == [ReportKind.DEADLINE_LOST]
    assert uplink.rate_bytes_per_s(session, 0.1) == pytest.approx(100_000.0)


def test_small_changes_of_the_capacity_do_not_flap_modes() -> None:
    uplink = scheduler(760_000.0)
    agent = attach(uplink, "a")
    others = (offer(Mode.KV_INT8, 750_000, 0.992), offer(Mode.KV_INT4, 250_000, 0.99))
    ask(uplink, "s", agent, 0.0, offers=others)
    modes = [grant.mode for grant in uplink.tick(0.0) if isinstance(grant, Grant)]
    for step in range(1, 9):
        now = 0.02 * step
        capacity = CapacityConfigured(GROUP, 700_000.0 if step % 2 else 900_000.0)
        actions = (*uplink.receive(capacity, now), *uplink.tick(now))
        modes += [grant.mode for grant in actions if isinstance(grant, Grant)]
    # It fell to int4 once, when int8 no longer fitted, and stayed: 0.002 is not worth a switch.
    assert list(dict.fromkeys(modes)) == [Mode.KV_INT8, Mode.KV_INT4]
    assert modes.count(Mode.KV_INT8) == 1


def test_a_tenants_weight_decides_who_keeps_its_quality() -> None:
    heavy = TenantPolicy(TenantId("heavy"), weight=3.0)
    # Only one of the two can have everything; which one, the weight says, not the order.
    for order in (("light", "heavy"), ("heavy", "light")):
        uplink = scheduler(1_000_500.0, [heavy])
        for name in order:
            agent = attach(uplink, name, tenant=name)
            ask(uplink, name, agent, 0.0, offers=(LADDER[0], LADDER[3]))
        granted = grants(uplink.tick(0.0))
        assert granted[SessionId("heavy")].mode is Mode.KV_BF16
        assert granted[SessionId("light")].mode is Mode.SCOUT


def test_requests_due_at_the_same_time_do_not_swap_their_order() -> None:
    """Deadlines are sums of floating-point times: equal ones differ in their last digits."""
    uplink = scheduler(1_000_000.0)
    offers = (offer(Mode.KV_INT4, 1_900_000, 1.0, cloud_s=0.1), offer(Mode.SCOUT, 400, 0.1))
    first = ask(uplink, "first", attach(uplink, "a"), 0.0, deadline_s=4.1, offers=offers)
    agent = attach(uplink, "b")
    # Arrived later, due 0.3 ms earlier: less than a message takes.
    second = ask(uplink, "second", agent, 0.1, deadline_s=3.9997, offers=offers)
    sent = {first: 0.0, second: 0.0}
    for step in range(1, 10):
        now = 0.1 * step
        uplink.receive(AgentHeard(agent), now)
        uplink.tick(now)
        rates = {session: uplink.rate_bytes_per_s(session, now) for session in sent}
        assert rates[first] > rates[second]
        for session, rate in rates.items():
            sent[session] += 0.1 * rate
            uplink.receive(RequestProgress(session, int(sent[session])), now + 0.0999)


def test_a_switch_to_an_offer_that_does_not_exist_is_the_peers_mistake() -> None:
    uplink = scheduler()
    session = ask(uplink, "s", attach(uplink, "a"), 0.0)
    with pytest.raises(RemoteProtocolError, match="does not have"):
        uplink.receive(RequestSwitched(session, 9), 0.0)


def test_a_request_of_an_unknown_agent_and_a_repeated_session_are_errors() -> None:
    uplink = scheduler()
    with pytest.raises(RemoteProtocolError, match="attach"):
        uplink.receive(RequestArrived(SessionId("s"), AgentId("x"), 1.0, LADDER), 0.0)
    agent = attach(uplink, "a")
    ask(uplink, "s", agent, 0.0)
    with pytest.raises(LocalProtocolError, match="already"):
        ask(uplink, "s", agent, 0.0)


def test_nothing_live_means_nothing_to_do() -> None:
    uplink = scheduler()
    assert uplink.next_deadline() is None
    session = ask(uplink, "s", attach(uplink, "a"), 0.0)
    uplink.tick(0.0)
    assert uplink.next_deadline() == pytest.approx(0.1)
    uplink.receive(RequestFinished(session), 0.05)
    uplink.tick(0.05)
    assert uplink.next_deadline() is None


def test_a_request_nobody_continues_is_forgotten() -> None:
    uplink = scheduler(policy=SchedulerPolicy(forget_after_s=5.0))
    ask(uplink, "s", attach(uplink, "a"), 0.0)
    seen = list[ReportKind]()
    for step in range(80):
        seen += reports(uplink.tick(step / 10))
    assert ReportKind.FORGOTTEN in seen
    assert uplink.status(8.0)[0].requests == 0


def test_requests_that_arrive_together_are_solved_together() -> None:
    uplink = scheduler(policy=SchedulerPolicy(planning_margin=0.0, coalesce_s=0.005))
    agent = attach(uplink, "a")
    ask(uplink, "s1", agent, 0.0)
    assert len(grants(uplink.tick(0.0))) == 1
    ask(uplink, "s2", agent, 0.001)
    ask(uplink, "s3", agent, 0.002)
    assert uplink.tick(0.003) == ()
    due = uplink.next_deadline()
    assert due is not None
    assert due == pytest.approx(0.005)
    assert {SessionId("s2"), SessionId("s3")} <= set(grants(uplink.tick(due)))


def test_status_says_what_is_granted_and_what_is_late() -> None:
    uplink = scheduler()
    ask(uplink, "s", attach(uplink, "a"), 0.0)
    uplink.tick(0.0)
    (status,) = uplink.status(0.0)
    assert status.granted_bytes_per_s == pytest.approx(1_000_000.0)
    assert (status.requests, status.late) == (1, 0)
    assert status.value == pytest.approx(1.0)

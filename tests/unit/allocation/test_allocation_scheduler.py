"""The scheduler behind its events: what it promises at every instant."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scout_core.allocation.capacity import CapacityObservation
from scout_core.allocation.events import (
    Action,
    AgentDied,
    AgentHeard,
    CapacityConfigured,
    CapacitySample,
    Grant,
    Reject,
    RejectCause,
    Report,
    ReportKind,
    RequestArrived,
    RequestFinished,
    RequestProgress,
    RequestPromised,
    RequestSwitched,
)
from scout_core.allocation.offer import Priority, TenantPolicy
from scout_core.allocation.policy import SchedulerPolicy
from scout_core.allocation.scheduler import UplinkScheduler
from scout_core.errors import LocalProtocolError, RemoteProtocolError
from scout_core.modes import AgentId, Mode, SessionId, TenantId
from tests.support.allocation_cases import GROUP, LADDER, ask, attach, grants, offer, scheduler


def reports(actions: tuple[Action, ...]) -> list[ReportKind]:
    return [action.kind for action in actions if isinstance(action, Report)]


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


def test_an_agent_that_sends_beyond_its_grant_is_contained_and_reported() -> None:
    uplink = scheduler()
    bad, good = attach(uplink, "bad"), attach(uplink, "good")
    floods = ask(
        uplink, "f", bad, 0.0, deadline_s=10.0, offers=(offer(Mode.KV_INT4, 5 * 10**6, 1.0),)
    )
    honest = ask(uplink, "h", good, 0.0, deadline_s=2.0)
    uplink.tick(0.0)
    actions = uplink.receive(RequestProgress(floods, 5_000_000), 0.1)
    assert reports(actions) == [ReportKind.BEYOND_GRANT]
    assert uplink.rate_bytes_per_s(floods, 0.1) == 0.0
    uplink.receive(AgentHeard(good), 0.1)
    uplink.tick(0.1)
    assert uplink.rate_bytes_per_s(honest, 0.1) == pytest.approx(1_000_000.0)


def test_a_contained_agent_is_reported_once_and_returns_when_its_debt_is_paid() -> None:
    uplink = scheduler()
    agent = attach(uplink, "a")
    session = ask(
        uplink, "s", agent, 0.0, deadline_s=60.0, offers=(offer(Mode.KV_INT4, 10**7, 1.0),)
    )
    uplink.tick(0.0)
    kinds = list[ReportKind]()
    for step in range(1, 4):
        kinds += reports(uplink.receive(RequestProgress(session, step * 3_000_000), step / 100))
    assert kinds == [ReportKind.BEYOND_GRANT]
    now = 0.1
    while now < 12.0:
        uplink.receive(AgentHeard(agent), now)
        uplink.tick(now)
        now += 0.1
    assert uplink.rate_bytes_per_s(session, now) > 0.0


def test_a_payload_larger_than_offered_loses_its_place() -> None:
    uplink = scheduler()
    agent = attach(uplink, "a")
    liar = ask(uplink, "s", agent, 0.0, deadline_s=2.0, offers=(offer(Mode.KV_SELECT, 1_000, 1.0),))
    honest = ask(uplink, "h", attach(uplink, "b"), 0.0, deadline_s=2.0)
    uplink.tick(0.0)
    actions = uplink.receive(RequestProgress(liar, 100_000), 0.1)
    assert reports(actions) == [ReportKind.BEYOND_OFFER]
    uplink.tick(0.2)
    assert uplink.rate_bytes_per_s(liar, 0.2) < 10_000.0
    assert uplink.rate_bytes_per_s(honest, 0.2) > 900_000.0


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


# What happens next: (kind, which agent or session, size or time).
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["arrive", "finish", "progress", "hear", "die", "capacity", "tick", "flood"]
        ),
        st.integers(0, 5),
        st.floats(0.0, 1.0),
    ),
    min_size=1,
    max_size=60,
)


class Driver:
    """Plays random events against a scheduler and checks its promises after each."""

    def __init__(self, uplink: UplinkScheduler) -> None:
        self.uplink = uplink
        self.now = 0.0
        self.capacity = 1_000_000.0
        self.sessions = dict[SessionId, int]()
        self.log = list[tuple[Action, ...]]()
        self.attached = dict[int, AgentId]()

    def play(self, steps: list[tuple[str, int, float]]) -> None:
        for number, (kind, which, amount) in enumerate(steps):
            self.now += 0.3 * amount
            self.follow(self._event(kind, which, amount, number))
            self.follow(self.uplink.tick(self.now))
            self.check()

    def follow(self, actions: tuple[Action, ...]) -> None:
        self.log.append(actions)
        for action in actions:
            if isinstance(action, Reject):
                del self.sessions[action.session]
            elif isinstance(action, Report) and action.kind is ReportKind.FORGOTTEN:
                assert action.session is not None
                del self.sessions[action.session]

    def check(self) -> None:
        (status, *_) = self.uplink.status(self.now) or (None,)
        if status is not None:
            assert status.granted_bytes_per_s <= self.capacity * (1 + 1e-6)
            assert status.requests == len(self.sessions)
        held = sum(self.uplink.rate_bytes_per_s(name, self.now) for name in self.sessions)
        assert held <= self.capacity * (1 + 1e-6)

    def _event(self, kind: str, which: int, amount: float, number: int) -> tuple[Action, ...]:
        agent = self.attached.get(which)
        if agent is None:
            agent = self.attached[which] = attach(self.uplink, f"agent-{which}", self.now)
        own = [name for name, owner in self.sessions.items() if owner == which]
        match kind:
            case "arrive":
                name = ask(self.uplink, f"s{number}", agent, self.now, deadline_s=0.2 + 3 * amount)
                self.sessions[name] = which
            case "finish" if own:
                del self.sessions[own[0]]
                return self.uplink.receive(RequestFinished(own[0]), self.now)
            case "progress" | "flood" if own:
                size = int(amount * (2_000_000 if kind == "flood" else 20_000))
                return self.uplink.receive(RequestProgress(own[-1], size), self.now)
            case "hear":
                return self.uplink.receive(AgentHeard(agent), self.now)
            case "die":
                for name in own:
                    del self.sessions[name]
                del self.attached[which]
                return self.uplink.receive(AgentDied(agent), self.now)
            case "capacity":
                self.capacity = max(1_000.0, 2_000_000 * amount)
                return self.uplink.receive(CapacityConfigured(GROUP, self.capacity), self.now)
            case _:
                pass
        return ()


@settings(max_examples=120, deadline=None)
@given(steps=STEPS)
def test_grants_never_exceed_the_capacity_whatever_happens(
    steps: list[tuple[str, int, float]],
) -> None:
    Driver(scheduler()).play(steps)


@settings(max_examples=30, deadline=None)
@given(steps=STEPS)
def test_equal_events_give_equal_actions(steps: list[tuple[str, int, float]]) -> None:
    first, second = Driver(scheduler()), Driver(scheduler())
    first.play(steps)
    second.play(steps)
    assert first.log == second.log


def test_shares_are_taken_before_they_are_given() -> None:
    uplink = scheduler()
    agents = [attach(uplink, f"a{number}") for number in range(4)]
    held = dict[SessionId, float]()
    for number, agent in enumerate(agents):
        now = 0.1 * number
        ask(uplink, f"s{number}", agent, now, deadline_s=3.0 - 0.5 * number)
        for action in uplink.tick(now):
            assert isinstance(action, Grant)
            held[action.session] = action.rate_bytes_per_s
            assert sum(held.values()) <= 1_000_000.0 * (1 + 1e-6)


def test_nobody_starves_and_everything_accepted_is_finished_in_the_end() -> None:
    """A flood of short deadlines beside one that has lost its own."""
    uplink = scheduler(200_000.0)
    slow = attach(uplink, "slow")
    victim = ask(uplink, "victim", slow, 0.0, offers=(offer(Mode.KV_BF16, 150_000, 1.0),))
    uplink.tick(0.0)
    uplink.receive(CapacityConfigured(GROUP, 20_000.0), 0.05)
    busy = attach(uplink, "busy")
    now, received, number = 0.05, 0.0, 0
    while received < 150_000 and now < 200.0:
        if number % 5 == 0:
            ask(
                uplink,
                f"s{number}",
                busy,
                now,
                offers=(offer(Mode.KV_INT4, 9_500, 1.0),),
                deadline_s=0.5,
            )
        uplink.receive(AgentHeard(busy), now)
        uplink.tick(now)
        received += uplink.rate_bytes_per_s(victim, now) * 0.1
        uplink.receive(RequestProgress(victim, int(received)), now)
        if number % 5 == 4:
            uplink.receive(RequestFinished(SessionId(f"s{number - 4}")), now)
        number += 1
        now += 0.1
    assert received >= 150_000
    assert math.isfinite(now)

"""Promises of the scheduler that hold whatever happens."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from scout_core.allocation.events import (
    Action,
    AgentDied,
    AgentHeard,
    CapacityConfigured,
    Grant,
    Reject,
    Report,
    ReportKind,
    RequestFinished,
    RequestProgress,
)
from scout_core.allocation.scheduler import UplinkScheduler
from scout_core.modes import AgentId, Mode, SessionId
from tests.support.allocation_cases import GROUP, ask, attach, offer, scheduler

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

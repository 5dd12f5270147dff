"""The uplink scheduler: events in, grants out, no clock inside.

This module owns who is attached, which group a request belongs to, and *when* to solve. It does not
know how offers are chosen (``group``) nor the wire. The shell calls ``receive`` for every event and
``tick`` whenever ``next_deadline`` has come, carries out the actions in order, and nothing else:

    receive(event, now) -> tuple[Action, ...]
    tick(now)           -> tuple[Action, ...]
    next_deadline()     -> float | None

Requests that arrive together are solved together, so most actions come from ``tick``. What cannot
wait comes from ``receive``: after a fall of the capacity, or for an agent that misbehaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import assert_never

from scout_core.allocation.agents import AgentSeat
from scout_core.allocation.capacity import CapacityPolicy
from scout_core.allocation.conduct import ConductAccount
from scout_core.allocation.events import (
    Action,
    AgentAttached,
    AgentDied,
    AgentHeard,
    CapacityConfigured,
    CapacitySample,
    Event,
    Grant,
    Report,
    ReportKind,
    RequestArrived,
    RequestFinished,
    RequestPaused,
    RequestProgress,
    RequestPromised,
    RequestSwitched,
)
from scout_core.allocation.group import GroupStatus, UplinkGroup
from scout_core.allocation.offer import GroupId, TenantPolicy
from scout_core.allocation.policy import SchedulerPolicy
from scout_core.allocation.problem import TOLERANCE
from scout_core.errors import RemoteProtocolError
from scout_core.modes import AgentId, SessionId


class _Timetable:
    """When a group was solved last and when it wants to be solved next."""

    def __init__(self, group: UplinkGroup, now: float) -> None:
        self.group = group
        self.solved_s = now
        self.wanted_s: float | None = None

    def want(self, at_s: float) -> None:
        self.wanted_s = at_s if self.wanted_s is None else min(self.wanted_s, at_s)

    def solved(self, now: float, period_s: float) -> None:
        self.solved_s = now
        self.wanted_s = None
        if len(self.group.table) == 0:
            return
        self.want(now + period_s)
        changes_s = (
            self.group.ledger.next_expiry_s(),
            self.group.next_ready_s(now),
            self.group.next_promised_s,
        )
        for at_s in changes_s:
            if at_s is not None and at_s > now:
                self.want(at_s)


class UplinkScheduler:
    """Allocates uplinks among agents.

    Args:
        capacity_of: how the capacity of a group is known; asked once per group, when its first
            agent attaches.
        tenants: weights and guarantees; other tenants have weight 1 and no guarantee.
        policy: settings.
    """

    def __init__(
        self,
        capacity_of: Callable[[GroupId], CapacityPolicy],
        tenants: Iterable[TenantPolicy] = (),
        policy: SchedulerPolicy | None = None,
    ) -> None:
        self._capacity_of = capacity_of
        self._tenants = {tenant.tenant: tenant for tenant in tenants}
        self._policy = SchedulerPolicy() if policy is None else policy
        self._agents: dict[AgentId, AgentSeat] = {}
        self._groups: dict[GroupId, _Timetable] = {}
        self._agent_of: dict[SessionId, AgentId] = {}

    def receive(self, event: Event, now: float) -> tuple[Action, ...]:
        """Takes an event in.

        Returns:
            What cannot wait for the next tick; often nothing.

        Raises:
            RemoteProtocolError: a request of an agent that is not attached, or a switch to an offer
                that the request does not have.
            LocalProtocolError: a session arrives twice.
        """
        match event:
            case AgentAttached():
                return self._attach(event, now)
            case AgentHeard():
                return self._hear(event.agent, now)
            case AgentDied():
                self._drop_agent(event.agent, now)
                return ()
            case RequestArrived():
                self._arrive(event, now)
                return ()
            case RequestProgress():
                return self._progress(event, now)
            case RequestPromised() | RequestPaused() | RequestSwitched():
                self._note(event, now)
                return ()
            case RequestFinished():
                self._finish(event.session, now)
                return ()
            case CapacitySample():
                return self._observe(event, now)
            case CapacityConfigured():
                group = self._group(event.group, now)
                group.group.capacity.configure(event.bytes_per_s, now)
                return self._capacity_changed(group, now)
            case _:
                assert_never(event)

    def tick(self, now: float) -> tuple[Action, ...]:
        """Solves every group whose time has come."""
        actions: list[Action] = []
        for timetable in self._groups.values():
            if timetable.wanted_s is not None and timetable.wanted_s <= now:
                actions.extend(self._solve(timetable, now))
        return tuple(actions)

    def next_deadline(self) -> float | None:
        """When to call ``tick`` next; None while nothing is live."""
        wanted = (timetable.wanted_s for timetable in self._groups.values())
        return min((at_s for at_s in wanted if at_s is not None), default=None)

    def status(self, now: float) -> tuple[GroupStatus, ...]:
        """One snapshot per group, in the order of first use."""
        return tuple(timetable.group.status(now) for timetable in self._groups.values())

    def capacity_bytes_per_s(self, group: GroupId) -> float:
        """What the uplink of a group carries that an agent has used; KeyError for others."""
        return self._groups[group].group.capacity.bytes_per_s

    def rate_bytes_per_s(self, session: SessionId, now: float) -> float:
        """What a session may send at ``now``; 0 if it is unknown or has no lease."""
        timetable = self._group_of(session)
        return 0.0 if timetable is None else timetable.group.ledger.rate_bytes_per_s(session, now)

    def _attach(self, event: AgentAttached, now: float) -> tuple[Action, ...]:
        self._drop_agent(event.agent, now)
        account = ConductAccount(self._policy.conduct, now)
        self._agents[event.agent] = AgentSeat(event, account, now)
        self._group(event.group, now)
        return ()

    def _hear(self, agent: AgentId, now: float) -> tuple[Action, ...]:
        seat = self._agents.get(agent)
        if seat is None:
            return ()
        if seat.sessions and seat.heard_s + self._policy.lease_s <= now:
            # It was taken for dead and its share given away: let it back in.
            self._want(self._group(seat.attached.group, now), now)
        seat.heard_s = now
        return ()

    def _drop_agent(self, agent: AgentId, now: float) -> None:
        seat = self._agents.get(agent)
        if seat is None:
            return
        for session in tuple(seat.sessions):
            self._finish(session, now)
        del self._agents[agent]

    def _arrive(self, event: RequestArrived, now: float) -> None:
        seat = self._agents.get(event.agent)
        if seat is None:
            raise RemoteProtocolError(
                f"Agent {event.agent} is not attached; attach before opening session "
                f"{event.session}.",
                agent=event.agent,
            )
        self._hear(event.agent, now)
        timetable = self._group(seat.attached.group, now)
        tenant = self._tenants.get(seat.attached.tenant)
        weight = event.priority.value * (tenant.weight if tenant else 1.0)
        limit = seat.attached.rate_limit_bytes_per_s
        timetable.group.table.add(event, weight=weight, limit_bytes_per_s=limit, now=now)
        seat.sessions[event.session] = None
        self._agent_of[event.session] = event.agent
        self._want(timetable, now)

    def _note(self, event: RequestPromised | RequestPaused | RequestSwitched, now: float) -> None:
        """What the next solve will see."""
        timetable = self._group_of(event.session)
        if timetable is None:
            return
        match event:
            case RequestPaused(session, paused):
                timetable.group.table.pause(session, paused=paused)
                self._want(timetable, now)
            case RequestPromised(session, promised_bytes):
                timetable.group.table.promise(session, promised_bytes, now)
            case RequestSwitched(session, offer):
                timetable.group.table.switch(session, offer)
            case _:
                assert_never(event)

    def _progress(self, event: RequestProgress, now: float) -> tuple[Action, ...]:
        timetable = self._group_of(event.session)
        if timetable is None:
            return ()
        agent = self._agent_of[event.session]
        seat, table = self._agents[agent], timetable.group.table
        self._hear(agent, now)
        actions: list[Action] = []
        new = table.advance(event.session, event.received_bytes, now)
        excess = seat.account.received(new, now)
        if excess > 0:
            actions.extend(self._contain(timetable, seat, excess, now))
        slot = table.slot(event.session)
        if table.overran(event.session) and table.deadline_s[slot] > now:
            amount = float(table.overrun_bytes[slot])
            actions.append(Report(ReportKind.BEYOND_OFFER, agent, event.session, amount))
            table.deadline_s[slot] = now
            self._want(timetable, now)
        return tuple(actions)

    def _contain(
        self, timetable: _Timetable, seat: AgentSeat, excess: float, now: float
    ) -> tuple[Action, ...]:
        group = timetable.group
        was_contained = seat.account.is_contained(now)
        granted = sum(group.ledger.rate_bytes_per_s(session, now) for session in seat.sessions)
        equal = group.capacity.bytes_per_s / max(len(group.table), 1)
        seat.account.contain(excess, max(granted, equal), now)
        withheld = group.withhold(seat, now)
        seat.account.granted(0.0, now)
        self._want(timetable, now)
        if was_contained:
            return withheld
        return (Report(ReportKind.BEYOND_GRANT, seat.agent, None, excess), *withheld)

    def _finish(self, session: SessionId, now: float) -> None:
        timetable = self._group_of(session)
        if timetable is None:
            return
        timetable.group.remove(session)
        seat = self._agents[self._agent_of.pop(session)]
        del seat.sessions[session]
        self._book_conduct(timetable.group, (seat.agent,), now)
        self._want(timetable, now)

    def _observe(self, event: CapacitySample, now: float) -> tuple[Action, ...]:
        timetable = self._group(event.group, now)
        timetable.group.capacity.observe(event.observation)
        return self._capacity_changed(timetable, now)

    def _capacity_changed(self, timetable: _Timetable, now: float) -> tuple[Action, ...]:
        group = timetable.group
        if group.ledger.granted_bytes_per_s(now) > group.capacity.bytes_per_s * (1 + TOLERANCE):
            return self._solve(timetable, now)
        if len(group.table):
            self._want(timetable, now)
        return ()

    def _solve(self, timetable: _Timetable, now: float) -> tuple[Action, ...]:
        forgotten = self._forget(timetable.group, now)
        actions = timetable.group.solve(self._agents, now)
        for action in actions:
            if not isinstance(action, Grant) and action.session is not None:
                self._release_if_gone(timetable.group, action.agent, action.session)
        granted = dict.fromkeys(action.agent for action in actions if isinstance(action, Grant))
        self._book_conduct(timetable.group, granted, now)
        timetable.solved(now, self._policy.period_s)
        return (*forgotten, *actions)

    def _release_if_gone(self, group: UplinkGroup, agent: AgentId, session: SessionId) -> None:
        """After a rejection the session is no longer in the table."""
        if session not in group.table:
            del self._agent_of[session]
            del self._agents[agent].sessions[session]

    def _forget(self, group: UplinkGroup, now: float) -> tuple[Action, ...]:
        """Removes requests that are past hope: deadline gone and no byte for a long time."""
        table, reports = group.table, list[Action]()
        slots = table.live_slots()
        idle_s = now - self._policy.forget_after_s
        hopeless = (table.deadline_s[slots] < now) & (table.progressed_s[slots] < idle_s)
        for slot in slots[hopeless]:
            request = table.request(int(slot))
            self._finish(request.session, now)
            reports.append(Report(ReportKind.FORGOTTEN, request.agent, request.session))
        return tuple(reports)

    def _book_conduct(self, group: UplinkGroup, agents: Iterable[AgentId], now: float) -> None:
        """Tells the accounts what their agents may send from now on."""
        for agent in agents:
            seat = self._agents[agent]
            rate = sum(group.ledger.rate_bytes_per_s(session, now) for session in seat.sessions)
            seat.account.granted(rate, now)

    def _want(self, timetable: _Timetable, now: float) -> None:
        timetable.want(max(now, timetable.solved_s + self._policy.coalesce_s))

    def _group(self, group: GroupId, now: float) -> _Timetable:
        timetable = self._groups.get(group)
        if timetable is None:
            state = UplinkGroup(group, self._capacity_of(group), self._policy, self._tenants, now)
            timetable = self._groups[group] = _Timetable(state, now)
            # Nothing was solved yet, so nothing is to be coalesced with.
            timetable.solved_s = now - self._policy.coalesce_s
        return timetable

    def _group_of(self, session: SessionId) -> _Timetable | None:
        agent = self._agent_of.get(session)
        return None if agent is None else self._groups[self._agents[agent].attached.group]

"""The scheduled uplinks of this server: drives the allocator and carries out what it decides.

Owns the clock and the one task of ``UplinkScheduler``, and which session and which control stream
an action is for. How offers and rates are chosen is ``scout_core.allocation``'s; that nobody sends
more than its share is the session's credit, paced at the rate given here. Groups without a
configured capacity are none of its business: their sessions open at once and are not paced.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final, assert_never

import structlog

from cloud_server.metrics import CloudMetrics
from cloud_server.offers import column_of
from cloud_server.scheduled_session import (
    Advice,
    Opening,
    PacedSession,
    ScheduledSession,
    UplinkSeat,
    refusal,
)
from cloud_server.settings import CloudSettings
from scout_core.allocation.capacity import CapacityPolicy
from scout_core.allocation.events import (
    Action,
    AgentAttached,
    AgentDied,
    AgentHeard,
    Event,
    Grant,
    Reject,
    Report,
    ReportKind,
    RequestFinished,
    RequestProgress,
    RequestSwitched,
)
from scout_core.allocation.group import GroupStatus
from scout_core.allocation.offer import GroupId, TenantPolicy
from scout_core.allocation.policy import SchedulerPolicy
from scout_core.allocation.scheduler import UplinkScheduler
from scout_core.errors import (
    CreditExceededError,
    OverloadedError,
    PeerTimeoutError,
    PeerUnavailableError,
    ScoutError,
)
from scout_core.modes import AgentId, SessionId, TenantId
from scout_core.protocol import events

BEATS_PER_LEASE: Final = 2.5
"""A lease outlasts two heartbeats, or a late one would cost an agent its share."""
log = structlog.get_logger("scout.cloud.uplink")


class Uplink:
    """Schedules the sessions of all groups with a configured capacity.

    Args:
        settings: capacities and tenants.
        metrics: told of every decision.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        settings: CloudSettings,
        metrics: CloudMetrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        capacities = settings.uplink_capacity_bytes_per_s
        lease_s = max(1.0, BEATS_PER_LEASE * settings.heartbeat_interval_s)
        self.policy = SchedulerPolicy(lease_s=lease_s)
        self._groups = {GroupId(name) for name in capacities}
        self._scheduler = UplinkScheduler(
            lambda group: CapacityPolicy(capacities[group]),
            _tenant_policies(settings),
            self.policy,
        )
        self._metrics = metrics
        self._clock = clock
        self._seats: dict[AgentId, UplinkSeat] = {}
        self._sessions: dict[SessionId, ScheduledSession] = {}
        self._contained_until_s: dict[AgentId, float] = {}
        self._wake = asyncio.Event()
        self._failed = False

    @property
    def attached_agents(self) -> int:
        """Agents attached, whether their uplink is scheduled or not."""
        return len(self._seats)

    def schedules(self, group: str) -> bool:
        """Whether sessions of this group are scheduled."""
        return group in self._groups

    def seat_for(self, agent: AgentId, tenant: TenantId) -> UplinkSeat | None:
        """The agent's seat if its uplink is scheduled; None if it is not.

        Raises:
            PeerUnavailableError: uplinks are scheduled and the agent is not attached: its session
                would send past everybody's share.
            OverloadedError: the agent is kept out for having exceeded its credit.
            ScoutError: the scheduler has failed.
        """
        if not self._groups:
            return None
        seat = self._seats.get(agent)
        if seat is None or seat.tenant != tenant:
            raise PeerUnavailableError(
                f"Agent {agent} is not attached; this server schedules its uplinks, so open the "
                "control stream first."
            )
        if seat.group not in self._groups:
            return None
        if self._failed:
            raise ScoutError("Internal error: the uplink's scheduler failed; see the server's log.")
        kept_out_s = self._contained_until_s.get(agent, 0.0) - self._clock()
        if kept_out_s > 0:
            raise OverloadedError(
                f"Agent {agent} sent beyond its credit and is kept out for {kept_out_s:.1f} s; "
                "send only what was granted.",
                retry_after_s=round(kept_out_s, 3),
            )
        self._contained_until_s.pop(agent, None)
        return seat

    def status(self) -> tuple[GroupStatus, ...]:
        """Every scheduled group that an agent has used."""
        return self._scheduler.status(self._clock())

    def sessions(self) -> tuple[ScheduledSession, ...]:
        """Sessions that have or want a share, for status and tests."""
        return tuple(self._sessions.values())

    def attach(self, seat: UplinkSeat) -> None:
        """An agent is there; sessions it has open go on under this seat."""
        now = self._clock()
        self.detach(self._seats.get(seat.agent, seat))
        self._seats[seat.agent] = seat
        mine = [it for it in self._sessions_of(seat.agent) if it.opening.tenant == seat.tenant]
        if seat.group not in self._groups:
            for session in mine:
                self._release(session)
            return
        self._tell(AgentAttached(seat.agent, seat.tenant, seat.group), now)
        for session in mine:
            session.begin_again(seat)
            self._tell(session.arrival(), now)

    def heard(self, seat: UplinkSeat) -> None:
        """A heartbeat came."""
        if self._seats.get(seat.agent) is seat:
            self._tell(AgentHeard(seat.agent), self._clock())

    def detach(self, seat: UplinkSeat) -> None:
        """The control stream ended: the agent's sessions wait until it is back."""
        if self._seats.get(seat.agent) is not seat:
            return
        del self._seats[seat.agent]
        self._tell(AgentDied(seat.agent), self._clock())
        for session in self._sessions_of(seat.agent):
            self._set_rate(session, 0.0)

    def _release(self, session: ScheduledSession) -> None:
        """Its agent has moved to an uplink that is not scheduled."""
        del self._sessions[session.opening.key]
        opened = events.RateAllocated(None) if session.accepted else session.opening.accept
        session.port.post(opened)

    def open(self, opening: Opening, seat: UplinkSeat, port: PacedSession) -> None:
        """A new session; it is accepted, or refused, by what the scheduler decides."""
        now = self._clock()
        session = ScheduledSession(opening, seat, port, now, opening.alternatives, opening.opened)
        self._sessions[opening.key] = session
        self._tell(session.arrival(), now)

    def finish(self, key: SessionId) -> None:
        """The payload is complete, or the session is over; more than once is harmless."""
        session = self._sessions.get(key)
        if session is not None:
            now = self._clock()
            self._note_progress(session, now)
            self._sessions.pop(key, None)
            self._tell(RequestFinished(key), now)

    def contain(self, agent: AgentId, group: str) -> None:
        """A session of the agent ended for sending beyond its credit: no new one for a while."""
        containment_s = self.policy.conduct.containment_s
        self._contained_until_s[agent] = self._clock() + containment_s
        self._report(Report(ReportKind.BEYOND_GRANT, agent, None), GroupId(group))

    async def run(self) -> None:
        """Ticks the scheduler until cancelled."""
        try:
            while True:
                await self._sleep_until(self._scheduler.next_deadline())
                self.tick()
        except Exception:
            # Whoever waits for a share would wait for ever: all are told, and nobody comes in.
            log.exception("uplink_scheduler_failed")
            self._failed = True
            error = ScoutError("Internal error: the uplink's scheduler failed; see the log.")
            for session in tuple(self._sessions.values()):
                session.port.post(events.Abort(error))
            raise

    def tick(self) -> None:
        """Solves the groups whose time has come; harmless at any time."""
        now = self._clock()
        due = self._scheduler.next_deadline()
        if due is None or due > now:
            return
        for session in tuple(self._sessions.values()):
            self._note_progress(session, now)
        started_s = time.perf_counter()
        actions = self._scheduler.tick(now)
        self._metrics.solve_s.observe(time.perf_counter() - started_s)
        self._perform(actions, now)
        self._metrics.uplinks(self._scheduler.status(now))

    async def _sleep_until(self, due_s: float | None) -> None:
        self._wake.clear()
        wait_s = None if due_s is None else max(due_s - self._clock(), 0.0)
        try:
            async with asyncio.timeout(wait_s):
                await self._wake.wait()
        except TimeoutError:
            return

    def _tell(self, event: Event, now: float) -> None:
        """Hands the scheduler an event, and does at once what cannot wait."""
        before = self._scheduler.next_deadline()
        actions = self._scheduler.receive(event, now)
        self._perform(actions, now)
        if self._scheduler.next_deadline() != before:
            self._wake.set()

    def _note_progress(self, session: ScheduledSession, now: float) -> None:
        """Bytes and switches in stream order: a byte counts by how it was coded."""
        received = session.port.received_bytes
        for switch in session.port.switches[session.booked_switches :]:
            if switch.offset > received:
                break
            session.booked_switches += 1
            self._book(session, switch.offset, now)
            column = _column_after(switch, session)
            if column is None:
                key = session.opening.session_id
                log.warning("switch_not_offered", session=key, mode=switch.mode.value)
                continue
            session.sent = column
            self._tell(RequestSwitched(session.opening.key, column), now)
        self._book(session, received, now)

    def _book(self, session: ScheduledSession, received_bytes: int, now: float) -> None:
        if received_bytes > session.booked_bytes:
            if session.booked_bytes == session.base_bytes:
                # The scheduler may have thought again before the first byte; this is what came.
                self._tell(RequestSwitched(session.opening.key, session.sent), now)
            self._metrics.received(session.seat.group, received_bytes - session.booked_bytes)
            session.booked_bytes = received_bytes
            progress = received_bytes - session.base_bytes
            self._tell(RequestProgress(session.opening.key, progress), now)
        if received_bytes >= session.opening.most_bytes:
            self._expel(session, now)

    def _expel(self, session: ScheduledSession, now: float) -> None:
        """It has sent more than it offered; without more credit it could only wait."""
        opening = session.opening
        if self._sessions.pop(opening.key, None) is None:
            return
        offered = max(each.offer.payload_bytes for each in session.alternatives)
        excess = float(session.booked_bytes - offered)
        kind = ReportKind.BEYOND_OFFER
        self._report(Report(kind, opening.agent, opening.session_id, excess), session.seat.group)
        error = CreditExceededError(
            f"The payload is larger than any of the offers ({offered} bytes); declare what is sent."
        )
        session.port.post(events.Abort(error))
        self._tell(RequestFinished(opening.key), now)

    def _perform(self, actions: tuple[Action, ...], now: float) -> None:
        for action in actions:
            session = self._sessions.get(action.session) if action.session else None
            match action:
                case Grant():
                    if session is not None:
                        self._grant(session, action, now)
                case Reject():
                    if session is not None:
                        self._reject(session, action, now)
                case Report():
                    seat = self._seats.get(action.agent)
                    group = session.seat.group if session else seat.group if seat else GroupId("")
                    self._report(action, group)
                    if session is not None:
                        self._act_on(action.kind, session)
                case _:
                    assert_never(action)

    def _grant(self, session: ScheduledSession, grant: Grant, now: float) -> None:
        seat, moved = session.seat, session.offer != grant.offer
        session.offer = grant.offer
        self._metrics.granted(seat.group, seat.tenant, grant)
        if session.accepted:
            self._set_rate(session, grant.rate_bytes_per_s)
            if moved:
                lease_s = grant.expires_at_s - now
                seat.advise(Advice(session.opening.session_id, session.share(), lease_s))
            return
        session.accepted, session.asked = True, grant.offer
        session.rate_bytes_per_s = grant.rate_bytes_per_s
        self._metrics.decision_s.observe(now - session.opened_s)
        self._metrics.recommended(seat.group, seat.tenant, grant.mode)
        session.port.post(
            replace(
                session.opening.accept,
                rate_bytes_per_s=grant.rate_bytes_per_s,
                share=session.share(),
            )
        )

    def _reject(self, session: ScheduledSession, reject: Reject, now: float) -> None:
        opening = session.opening
        self._metrics.rejected(session.seat.group, opening.tenant, reject)
        del self._sessions[opening.key]
        retry_after_s = round(max(reject.retry_at_s - now, 0.0), 3)
        earliest_s = round(max(reject.earliest_at_s - now, 0.0), 3)
        log.warning(
            "session_rejected",
            session=opening.session_id,
            agent=opening.agent,
            cause=reject.cause.value,
            retry_after_s=retry_after_s,
            earliest_s=earliest_s,
        )
        session.port.post(events.Abort(refusal(reject.cause, retry_after_s, earliest_s)))

    def _report(self, report: Report, group: GroupId) -> None:
        self._metrics.reported(group, report)
        log.warning(
            "uplink_reported",
            kind=report.kind.value,
            group=group,
            agent=report.agent,
            session=report.session,
            amount=round(report.amount, 3),
        )

    def _act_on(self, kind: ReportKind, session: ScheduledSession) -> None:
        match kind:
            case ReportKind.LEASE_EXPIRED:
                self._set_rate(session, 0.0)
            case ReportKind.FORGOTTEN:
                del self._sessions[session.opening.key]
                session.port.post(
                    events.Abort(
                        PeerTimeoutError(
                            "The deadline has passed and no payload came for "
                            f"{self.policy.forget_after_s:g} s; ask again."
                        )
                    )
                )
            case (
                ReportKind.DEADLINE_LOST
                | ReportKind.DEADLINE_REGAINED
                | ReportKind.BEYOND_GRANT
                | ReportKind.BEYOND_OFFER
            ):
                return  # the grants that follow say what becomes of it
            case _:
                assert_never(kind)

    def _set_rate(self, session: ScheduledSession, rate_bytes_per_s: float) -> None:
        if session.accepted and session.rate_bytes_per_s != rate_bytes_per_s:
            session.port.post(events.RateAllocated(rate_bytes_per_s))
        session.rate_bytes_per_s = rate_bytes_per_s

    def _sessions_of(self, agent: AgentId) -> tuple[ScheduledSession, ...]:
        return tuple(
            session for session in self._sessions.values() if session.opening.agent == agent
        )


def _column_after(switch: events.SwitchReceived, session: ScheduledSession) -> int | None:
    """The alternative that a switch stands for. At the very start it mostly is the one asked for,
    of which there may be two executions; a switch names none."""
    asked = session.alternatives[session.asked].offer
    column = column_of(session.alternatives, switch.mode, switch.retention)
    if switch.offset > 0 or column is None or asked.mode is not switch.mode:
        return column
    nearest = session.alternatives[column].offer
    return session.asked if nearest.retention == asked.retention else column


def _tenant_policies(settings: CloudSettings) -> tuple[TenantPolicy, ...]:
    weights, shares = settings.tenant_weights, settings.tenant_guaranteed_shares
    return tuple(
        TenantPolicy(TenantId(name), weights.get(name, 1.0), shares.get(name, 0.0))
        for name in sorted({*weights, *shares})
    )

"""The scheduled uplinks of this server: drives the allocator.

Owns the clock and the one task of ``UplinkScheduler``: what it is told and when. How offers and
rates are chosen is ``scout_core.allocation``'s, what becomes of its actions ``decisions``'. Groups
without a capacity are none of its business: their sessions open at once and are not paced.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

import structlog

from cloud_server.capacity_watch import CapacityWatch, learnt_capacity
from cloud_server.decisions import Decisions
from cloud_server.metrics import CloudMetrics
from cloud_server.scheduled_session import Opening, PacedSession, ScheduledSession
from cloud_server.seats import Seating, UplinkSeat
from cloud_server.session_books import SessionBooks, unbooked_progress
from cloud_server.settings import LEARN, Capacity, CloudSettings
from scout_core.allocation.capacity import CapacityPolicy
from scout_core.allocation.events import (
    AgentAttached,
    AgentDied,
    AgentHeard,
    Event,
    RequestFinished,
)
from scout_core.allocation.group import GroupStatus
from scout_core.allocation.offer import GroupId, TenantPolicy
from scout_core.allocation.policy import SchedulerPolicy
from scout_core.allocation.scheduler import UplinkScheduler
from scout_core.errors import ScoutError
from scout_core.modes import AgentId, SessionId, TenantId
from scout_core.protocol import events
from scout_core.protocol.credit import credit_lag_s

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
        learning = {GroupId(name) for name, figure in capacities.items() if figure == LEARN}
        self._watch = CapacityWatch(frozenset(learning))
        self._scheduler = UplinkScheduler(
            lambda group: _capacity_policy(capacities[group]),
            _tenant_policies(settings),
            self.policy,
        )
        self._metrics = metrics
        self._clock = clock
        self._seating = Seating()
        self._books = SessionBooks()
        self._decisions = Decisions(self._books, self._seating, metrics, self.policy.forget_after_s)
        self._wake = asyncio.Event()
        self._failed = False

    @property
    def attached_agents(self) -> int:
        """Agents attached, whether their uplink is scheduled or not."""
        return len(self._seating)

    def schedules(self, group: str) -> bool:
        """Whether sessions of this group are scheduled."""
        return group in self._groups

    def seat_for(self, agent: AgentId, tenant: TenantId) -> UplinkSeat | None:
        """The agent's seat if its uplink is scheduled; None if it is not.

        Raises:
            PeerUnavailableError: uplinks are scheduled and the agent is not attached.
            OverloadedError: the agent is kept out for having exceeded its credit.
            ScoutError: the scheduler has failed.
        """
        if not self._groups:
            return None
        seat = self._seating.require(agent, tenant)
        if seat.group not in self._groups:
            return None
        if self._failed:
            raise ScoutError("Internal error: the uplink's scheduler failed; see the server's log.")
        self._decisions.expect_welcome(seat, self._clock())
        return seat

    def delivery_s(self, seat: UplinkSeat, round_trip_s: float) -> float:
        """From a byte's place in the schedule to its arrival: see ``credit_lag_s``."""
        return credit_lag_s(self._scheduler.capacity_bytes_per_s(seat.group), round_trip_s)

    def status(self) -> tuple[GroupStatus, ...]:
        """Every scheduled group that an agent has used."""
        return self._scheduler.status(self._clock())

    def sessions(self) -> tuple[ScheduledSession, ...]:
        """Sessions that have or want a share, for status and tests."""
        return self._books.all()

    def attach(self, seat: UplinkSeat) -> None:
        """An agent is there; sessions it has open go on under this seat."""
        now = self._clock()
        self.detach(self._seating.find(seat.agent) or seat)
        self._seating.take(seat)
        mine = [it for it in self._books.of(seat.agent) if it.opening.tenant == seat.tenant]
        if seat.group not in self._groups:
            for session in mine:
                self._decisions.release(session)
            return
        self._tell(AgentAttached(seat.agent, seat.tenant, seat.group), now)
        for session in mine:
            session.begin_again(seat)
            self._tell(session.arrival(), now)

    def heard(self, seat: UplinkSeat) -> None:
        """A heartbeat came."""
        if self._seating.holds(seat):
            self._tell(AgentHeard(seat.agent), self._clock())

    def detach(self, seat: UplinkSeat) -> None:
        """The control stream ended: the agent's sessions wait until it is back."""
        if not self._seating.holds(seat):
            return
        self._seating.leave(seat)
        now = self._clock()
        self._tell(AgentDied(seat.agent), now)
        for session in self._books.of(seat.agent):
            self._decisions.set_rate(session, 0.0, now)

    def open(self, opening: Opening, seat: UplinkSeat, port: PacedSession) -> None:
        """A new session; it is accepted, or refused, by what the scheduler decides."""
        now = self._clock()
        session = ScheduledSession(opening, seat, port, now, opening.alternatives, opening.opened)
        self._books.add(session)
        self._tell(session.arrival(), now)

    def pause(self, key: SessionId) -> None:
        """The session lost its stream, and does not wait for the next solve to say so; that it has
        one again is seen there."""
        session = self._books.find(key)
        if session is not None:
            self._note_progress(session, self._clock())

    def finish(self, key: SessionId) -> None:
        """The payload is complete, or the session is over; more than once is harmless."""
        session = self._books.find(key)
        if session is not None:
            now = self._clock()
            self._note_progress(session, now)
            self._books.remove(session)
            self._tell(RequestFinished(key), now)

    def contain(self, agent: AgentId, group: str) -> None:
        """A session of the agent ended for sending beyond its credit: no new one for a while,
        and for longer if it goes on."""
        shortest_s = self.policy.conduct.containment_s
        self._decisions.contain(agent, GroupId(group), shortest_s, self._clock())

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
            for session in self._books.all():
                session.port.post(events.Abort(error))
            raise

    def tick(self) -> None:
        """Solves the groups whose time has come; harmless at any time."""
        now = self._clock()
        due = self._scheduler.next_deadline()
        if due is None or due > now:
            return
        for session in self._books.all():
            self._note_progress(session, now)
        statuses = self._scheduler.status(now)
        for sample in self._watch.samples(self._books.all(), statuses, now):
            self._tell(sample, now)
        started_s = time.perf_counter()
        actions = self._scheduler.tick(now)
        self._metrics.solve_s.observe(time.perf_counter() - started_s)
        self._decisions.carry_out(actions, now)
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
        self._decisions.carry_out(actions, now)
        if self._scheduler.next_deadline() != before:
            self._wake.set()

    def _note_progress(self, session: ScheduledSession, now: float) -> None:
        before = session.booked_bytes
        for event in unbooked_progress(session, now):
            self._tell(event, now)
        if session.booked_bytes > before:
            self._metrics.received(session.seat.group, session.booked_bytes - before)
        sent_too_much = session.booked_bytes >= session.opening.most_bytes
        if sent_too_much and self._decisions.expel(session):
            self._tell(RequestFinished(session.opening.key), now)


def _capacity_policy(figure: Capacity) -> CapacityPolicy:
    return learnt_capacity() if figure == LEARN else CapacityPolicy(figure)


def _tenant_policies(settings: CloudSettings) -> tuple[TenantPolicy, ...]:
    weights, shares = settings.tenant_weights, settings.tenant_guaranteed_shares
    return tuple(
        TenantPolicy(TenantId(name), weights.get(name, 1.0), shares.get(name, 0.0))
        for name in sorted({*weights, *shares})
    )

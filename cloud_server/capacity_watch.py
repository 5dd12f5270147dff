"""What the uplinks of this server really carry: observations for groups whose capacity is learnt.

Owns what is derived from the sessions' credit and payload: how much of the granted rate arrived,
and how long bytes waited. What becomes of the estimate is ``scout_core.allocation.capacity``'s.

A byte takes a round trip from the credit that allows it to its arrival, a pacing quantum more, and
what it waits in the uplink's queue. That time is (credit − received) ÷ arrival rate (Little 1961).
The queue is common to the group, so its delay is the smallest of all sessions that flow: an edge
that computes slowly delays only itself. Only where a single session flows can the two not be told
apart: then the estimate falls to what that edge sends, and recovers with the next one's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from cloud_server.scheduled_session import ScheduledSession
from scout_core.allocation.capacity import CapacityObservation, CapacityPolicy
from scout_core.allocation.events import CapacitySample
from scout_core.allocation.group import GroupStatus
from scout_core.allocation.offer import GroupId
from scout_core.modes import SessionId
from scout_core.protocol.credit import credit_lag_s

FIRST_GUESS_BYTES_PER_S: Final = 125_000.0
"""1 Mbit/s: where learning begins; it doubles in half a second while nothing queues."""
DELAY_LIMIT_S: Final = 0.06
"""Waiting below this is jitter: two grants of 20 ms, and an event loop that is late by as much."""
STRETCH_S: Final = 0.2
"""Observed at a time: ten pacing intervals, so that a grant more or less is a tenth."""
SATURATED: Final = 0.5
"""Part of the capacity that must be granted to sessions that flow for a stretch to say anything."""
CATCHING_UP: Final = 1.1
"""At most so much of what was granted counts as arrived: a queue that drains is no capacity."""


def learnt_capacity() -> CapacityPolicy:
    """The policy of a group whose capacity nobody has configured."""
    return CapacityPolicy(FIRST_GUESS_BYTES_PER_S, learns=True, delay_limit_s=DELAY_LIMIT_S)


@dataclass(frozen=True, slots=True)
class _Mark:
    """One session as last seen."""

    at_s: float
    received_bytes: int
    rate_bytes_per_s: float
    flows: bool


@dataclass(slots=True)
class _Stretch:
    """Sums over the sessions of one group while any of them flowed."""

    flowing_s: float = 0.0
    granted_bytes: float = 0.0
    arrived_bytes: float = 0.0
    carried_bytes: float = 0.0
    """Of all sessions: what is still on its way after a share was taken fills the link, too."""
    waiting_s: float = math.inf


class CapacityWatch:
    """Watches the sessions of learning groups.

    Args:
        groups: those that learn.
    """

    def __init__(self, groups: frozenset[GroupId]) -> None:
        self._groups = groups
        self._marks: dict[SessionId, _Mark] = {}
        self._stretches = {group: _Stretch() for group in groups}
        self._looked_s = 0.0

    def samples(
        self, sessions: Iterable[ScheduledSession], statuses: Iterable[GroupStatus], now: float
    ) -> Iterator[CapacitySample]:
        """Looks at every session; yields what the stretches that are over have shown."""
        if not self._groups:
            return
        marks: dict[SessionId, _Mark] = {}
        flowed: set[GroupId] = set()
        for session in sessions:
            if session.seat.group in self._groups and session.accepted:
                before = self._marks.get(session.opening.key)
                if before is not None:
                    carried = session.port.received_bytes - before.received_bytes
                    self._stretches[session.seat.group].carried_bytes += carried
                    if before.flows and not session.is_ending:
                        self._compare(session, before, now)
                        flowed.add(session.seat.group)
                    elif before.rate_bytes_per_s == 0:
                        # Promised while it had a rate, and on its way since.
                        self._stretches[session.seat.group].arrived_bytes += carried
                marks[session.opening.key] = _mark(session, now)
        for group in flowed:
            self._stretches[group].flowing_s += now - self._looked_s
        self._marks, self._looked_s = marks, now
        for status in statuses:
            sample = self._conclude(status, now)
            if sample is not None:
                yield sample

    def _compare(self, session: ScheduledSession, before: _Mark, now: float) -> None:
        span_s, received = now - before.at_s, session.port.received_bytes
        arrived = received - before.received_bytes
        stretch = self._stretches[session.seat.group]
        stretch.granted_bytes += before.rate_bytes_per_s * span_s
        stretch.arrived_bytes += arrived
        outstanding = session.port.credit_bytes - received
        waiting_s = outstanding * span_s / max(arrived, 1) - credit_lag_s(
            session.rate_bytes_per_s, session.opening.round_trip_s
        )
        stretch.waiting_s = min(stretch.waiting_s, max(waiting_s, 0.0))

    def _conclude(self, status: GroupStatus, now: float) -> CapacitySample | None:
        stretch = self._stretches.get(status.group)
        if stretch is None or stretch.flowing_s < STRETCH_S:
            return None
        self._stretches[status.group] = _Stretch()
        if stretch.granted_bytes < SATURATED * status.capacity_bytes_per_s * stretch.flowing_s:
            return None
        arrived_part = min(stretch.arrived_bytes / stretch.granted_bytes, CATCHING_UP)
        goodput = arrived_part * status.capacity_bytes_per_s
        if stretch.waiting_s > DELAY_LIMIT_S:
            # Bytes queue, so what arrives is what the link carries; what was granted is another
            # matter, above all just after it was lowered.
            goodput = stretch.carried_bytes / stretch.flowing_s
        observation = CapacityObservation(goodput, stretch.waiting_s, True, now)
        return CapacitySample(status.group, observation)


def _mark(session: ScheduledSession, now: float) -> _Mark:
    received, rate = session.port.received_bytes, session.rate_bytes_per_s
    return _Mark(now, received, rate, received > session.base_bytes and rate > 0)

"""The books of the scheduled sessions: which are open, and what the scheduler was told of each.

Owns the table and the order in which progress is told: a byte counts by how it was coded, so
switches and bytes go out as they stand in the stream. It decides nothing and knows no scheduler.
"""

from __future__ import annotations

from collections.abc import Iterator

import structlog

from cloud_server.offers import column_of
from cloud_server.scheduled_session import ScheduledSession
from scout_core.allocation.events import (
    Event,
    RequestPaused,
    RequestProgress,
    RequestPromised,
    RequestSwitched,
)
from scout_core.modes import AgentId, SessionId
from scout_core.protocol import events

log = structlog.get_logger("scout.cloud.uplink")


class SessionBooks:
    """Sessions that have or want a share."""

    def __init__(self) -> None:
        self._sessions: dict[SessionId, ScheduledSession] = {}

    def all(self) -> tuple[ScheduledSession, ...]:
        """Every session, in the order of opening."""
        return tuple(self._sessions.values())

    def of(self, agent: AgentId) -> tuple[ScheduledSession, ...]:
        """The sessions of one agent."""
        return tuple(it for it in self._sessions.values() if it.opening.agent == agent)

    def find(self, key: SessionId) -> ScheduledSession | None:
        return self._sessions.get(key)

    def add(self, session: ScheduledSession) -> None:
        self._sessions[session.opening.key] = session

    def remove(self, session: ScheduledSession) -> bool:
        """Whether it was still there."""
        return self._sessions.pop(session.opening.key, None) is not None


def unbooked_progress(session: ScheduledSession, now: float) -> Iterator[Event]:
    """What the scheduler has not heard of yet, in stream order; booked as it is taken."""
    suspended = session.port.is_suspended
    if suspended != session.booked_suspension:
        session.booked_suspension = suspended
        yield RequestPaused(session.opening.key, paused=suspended)
    received = session.port.received_bytes
    promised = max(session.port.promised_bytes(now), received)
    if promised != session.booked_promise_bytes:
        session.booked_promise_bytes = promised
        yield RequestPromised(session.opening.key, promised - session.base_bytes)
    for switch in session.port.switches[session.booked_switches :]:
        if switch.offset > received:
            break
        session.booked_switches += 1
        yield from _bytes_until(switch.offset, session)
        column = _column_after(switch, session)
        if column is None:
            name = session.opening.session_id
            log.warning("switch_not_offered", session=name, mode=switch.mode.value)
            continue
        session.sent = column
        yield RequestSwitched(session.opening.key, column)
    yield from _bytes_until(received, session)


def _bytes_until(received_bytes: int, session: ScheduledSession) -> Iterator[Event]:
    if received_bytes <= session.booked_bytes:
        return
    if session.booked_bytes == session.base_bytes:
        # The scheduler may have thought again before the first byte; this is what came.
        yield RequestSwitched(session.opening.key, session.sent)
    session.booked_bytes = received_bytes
    yield RequestProgress(session.opening.key, received_bytes - session.base_bytes)


def _column_after(switch: events.SwitchReceived, session: ScheduledSession) -> int | None:
    """The alternative that a switch stands for. At the very start it mostly is the one asked for,
    of which there may be two executions; a switch names none."""
    asked = session.alternatives[session.asked].offer
    column = column_of(session.alternatives, switch.mode, switch.retention)
    if switch.offset > 0 or column is None or asked.mode is not switch.mode:
        return column
    nearest = session.alternatives[column].offer
    return session.asked if nearest.retention == asked.retention else column

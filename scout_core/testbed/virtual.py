"""The emulator's virtual-time twin: when whole transfers arrive, without waiting for them.

This module owns the closed form of what ``bottleneck`` and ``lane`` do piece by piece: the same
rate schedule, delay, jitter, queue and sharing, at the price of some microseconds a transfer. It is
for request-level studies; it carries no bytes and knows no clock.

How flows share (this is what makes it cheap): the emulator reads its senders in turns whenever the
queue has room, so all blocked senders fill the queue at equal shares of the link's rate, and a byte
admitted when ``s`` bytes were served leaves when ``s + queue_bytes`` were. Counted in served bytes,
both facts do not depend on the rate, so only completions need a time. Fair queueing is the same
with a queue of nothing: the shares are of the service itself.

What it leaves out, being below the resolution of request-level studies: the kernel buffers of real
sockets, the event loop's millisecond, and the handshake of a new connection.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import NewType, assert_never

from scout_core.errors import LocalProtocolError
from scout_core.testbed.jitter import Jitter
from scout_core.testbed.link import DirectionConfig
from scout_core.testbed.queueing import Discipline, FlowId
from scout_core.testbed.schedule import BITS_PER_BYTE, RateSchedule

TransferId = NewType("TransferId", int)

ROUNDING_BYTES = 1e-3
"""Served bytes are a float; a transfer is complete within this of its last byte."""


@dataclass(frozen=True, slots=True)
class Completion:
    """The last byte of a transfer has reached the far side at ``at_s``."""

    transfer: TransferId
    flow: FlowId
    at_s: float


@dataclass(slots=True)
class _Waiting:
    """A transfer with bytes still at its sender, outside the queue."""

    transfer: TransferId
    flow: FlowId
    left_bytes: float


@dataclass(slots=True)
class _Busy:
    """The state of sharing, in bytes served since the link was last empty."""

    served: float = 0.0
    admitted: float = 0.0
    ends: deque[tuple[float, _Waiting]] = field(default_factory=deque[tuple[float, _Waiting]])
    """Transfers wholly admitted, with the served bytes at which their last one leaves."""


class VirtualDirection:
    """One direction of a link in virtual time, shared by any number of flows.

    Transfers of one flow go one after another, as on one connection; flows share. ``now`` must not
    go back between calls.
    """

    def __init__(self, config: DirectionConfig, now: float = 0.0) -> None:
        self._schedule = config.schedule
        self._delay_s = config.delay_s
        self._jitter = Jitter(config.jitter_s, config.seed)
        self._queue_bytes = _shared_queue_bytes(config)
        self._start_s = now
        self._epoch_s = now
        self._now = now
        self._blocked_until_s = now
        self._busy = _Busy()
        self._waiting: dict[FlowId, deque[_Waiting]] = {}
        self._flying: deque[Completion] = deque()
        self._next_transfer = 0

    def submit(self, flow: FlowId, size_bytes: int, now: float) -> TransferId:
        """Hand ``size_bytes`` of a flow to the link at ``now``.

        Raises:
            LocalProtocolError: no bytes, or ``now`` lies before an earlier call's.
        """
        if size_bytes < 1:
            raise LocalProtocolError(f"A transfer has at least one byte, got {size_bytes}.")
        self._serve(now)
        transfer = TransferId(self._next_transfer)
        self._next_transfer += 1
        line = self._waiting.setdefault(flow, deque())
        line.append(_Waiting(transfer, flow, float(size_bytes)))
        self._admit()
        return transfer

    def advance(self, now: float) -> tuple[Completion, ...]:
        """Completions up to ``now`` that were not returned before, in order."""
        self._serve(now)
        landed: list[Completion] = []
        while self._flying and self._flying[0].at_s <= now:
            landed.append(self._flying.popleft())
        return tuple(landed)

    def next_event_s(self) -> float:
        """When the next completion lands if nothing else happens; infinite if none will."""
        if self._flying:
            return self._flying[0].at_s
        end = self._next_end()
        return math.inf if end is None else self._landing_s(self._time_of(end))

    def set_schedule(self, schedule: RateSchedule, now: float) -> None:
        """Replace the rate from ``now`` on; the new schedule's time 0 is ``now``."""
        self._serve(now)
        self._schedule = schedule
        self._epoch_s = now

    def start_outage(self, duration_s: float, now: float) -> None:
        """Serve nothing for ``duration_s``; the schedule's time runs on meanwhile."""
        self._serve(now)
        self._blocked_until_s = max(self._blocked_until_s, now + duration_s)

    def _serve(self, now: float) -> None:
        """Account for the service since the last call."""
        if now < self._now:
            raise LocalProtocolError(f"Virtual time went back from {self._now} s to {now} s.")
        busy = self._busy
        while (end := self._next_end()) is not None:
            finish_s = self._time_of(end)
            if finish_s > now:
                busy.served += self._bytes_until(now)
                self._now = now
                self._admit()
                return
            busy.served = end
            self._now = max(finish_s, self._now)
            self._admit()
            _, done = busy.ends.popleft()
            at_s = self._landing_s(finish_s)
            self._flying.append(Completion(done.transfer, done.flow, at_s))
        self._now = now
        self._busy = _Busy()

    def _admit(self) -> None:
        """Let senders fill the queue in equal shares as far as service has made room."""
        busy = self._busy
        limit = busy.served + self._queue_bytes + ROUNDING_BYTES
        while self._waiting:
            step = self._next_share()
            if busy.admitted + step > limit:
                share = (max(limit - busy.admitted, 0.0)) / len(self._waiting)
                for line in self._waiting.values():
                    line[0].left_bytes -= share
                busy.admitted = max(limit, busy.admitted)
                return
            self._admit_one(step)

    def _next_share(self) -> float:
        """Bytes to admit until the first sender is through with its present transfer."""
        return len(self._waiting) * min(line[0].left_bytes for line in self._waiting.values())

    def _admit_one(self, step: float) -> None:
        """Admit ``step`` bytes, after which one flow's transfer is wholly in the queue."""
        busy = self._busy
        share = step / len(self._waiting)
        busy.admitted += step
        for line in self._waiting.values():
            line[0].left_bytes -= share
        through = min(self._waiting.values(), key=lambda line: line[0].left_bytes)
        waiting = through.popleft()
        busy.ends.append((busy.admitted, waiting))
        if not through:
            del self._waiting[waiting.flow]

    def _next_end(self) -> float | None:
        """Served bytes at which the next transfer is through, None when nothing waits."""
        busy = self._busy
        if busy.ends:
            return busy.ends[0][0]
        return busy.admitted + self._next_share() if self._waiting else None

    def _time_of(self, served: float) -> float:
        start_s = max(self._now, self._blocked_until_s) - self._epoch_s
        return self._epoch_s + self._schedule.finish_time(start_s, served - self._busy.served)

    def _bytes_until(self, now: float) -> float:
        start_s = max(self._now, self._blocked_until_s) - self._epoch_s
        return self._schedule.bits_between(start_s, now - self._epoch_s) / BITS_PER_BYTE

    def _landing_s(self, left_s: float) -> float:
        return left_s + self._delay_s + self._jitter.late_s(left_s - self._start_s)


def _shared_queue_bytes(config: DirectionConfig) -> float:
    match config.discipline:
        case Discipline.FIFO:
            return float(config.queue_bytes)
        case Discipline.FAIR:
            return 0.0
        case _:
            assert_never(config.discipline)

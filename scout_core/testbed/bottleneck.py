"""The model of one direction of a link: a bottleneck with a queue, then propagation delay.

This module owns the semantics that ``proxy`` runs in real time, and that ``virtual`` computes in
closed form for whole transfers: service by a rate schedule, a finite queue in bytes, one-way delay
with order-preserving jitter, outages, and what a flow's end means. It knows no socket, clock or
event loop: ``now`` is an argument, in seconds on any monotonic clock, and must not go back.

It counts bytes and carries none. Service is fluid but handed out in pieces of at least one
segment (or whatever ends an entry), each stamped with the exact instant at which its last byte
left the bottleneck; so the rate has no drift, however late ``advance`` is called.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from scout_core.errors import LocalProtocolError, SettingsError
from scout_core.testbed.jitter import Jitter
from scout_core.testbed.link import SEGMENT_BYTES, DirectionConfig
from scout_core.testbed.queueing import Ending, Entry, FlowId, waiting_line
from scout_core.testbed.schedule import BITS_PER_BYTE, BITS_PER_MEGABIT, RateSchedule

FAIR_TURN_S = 0.001
"""Under fair queueing a turn lasts this long at the present rate (one segment at least)."""
ROUNDING_BYTES = 0.05
"""Tolerance when a time is turned back into bytes: clocks of 10^6 s resolve 10^-10 s, which is
0.0125 byte at 1 Gbit/s. A piece that ends with ``advance`` may be early by so much; whole ones are
stamped with their exact finish."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """``size_bytes`` of a flow, and perhaps its end, reach the far side at ``at_s``."""

    flow: FlowId
    size_bytes: int
    at_s: float
    ending: Ending | None = None


class Bottleneck:
    """One direction, shared by any number of flows.

    The caller calls ``advance(now)``, then enqueues what ``room_bytes`` allows, and takes
    deliveries with ``pop_due(now)``.
    """

    def __init__(self, config: DirectionConfig, now: float) -> None:
        self._config = config
        self._schedule = config.schedule
        self._epoch_s = now
        self._jitter = Jitter(config.jitter_s, config.seed)
        self._jitter_epoch_s = now
        self._clock_s = now
        """Service is accounted for up to here; while there is a backlog it may lie before now."""
        self._credit_bytes = 0.0
        """Service the head entry already had before a change of schedule or an outage."""
        self._blocked_until_s = now
        self._waiting = waiting_line(config.discipline, config.queue_bytes)
        self._flying: deque[Delivery] = deque()
        self._flying_bytes = 0

    @property
    def backlog_bytes(self) -> int:
        """Bytes in the queue, not yet through the bottleneck."""
        return self._waiting.total_bytes

    @property
    def flying_bytes(self) -> int:
        """Bytes through the bottleneck, on their way to the far side."""
        return self._flying_bytes

    def rate_mbps(self, now: float) -> float:
        """The rate in force: 0 in an outage."""
        return 0.0 if now < self._blocked_until_s else self._schedule.rate_mbps(now - self._epoch_s)

    def room_bytes(self, flow: FlowId) -> int:
        """How many more bytes of this flow the queue takes now."""
        return self._waiting.room_bytes(flow)

    def enqueue(self, flow: FlowId, size_bytes: int, ending: Ending | None = None) -> None:
        """Append bytes, or only an ending, to the queue.

        The queue's limit is the caller's to keep (``room_bytes``): bytes are never dropped, since
        TCP would send them again; the caller stops reading instead.

        Raises:
            LocalProtocolError: neither bytes nor an ending.
        """
        if size_bytes < 0 or (size_bytes == 0 and ending is None):
            raise LocalProtocolError(f"Enqueue at least one byte or an ending, got {size_bytes}.")
        self._waiting.append(Entry(flow, size_bytes, ending))

    def advance(self, now: float, *, busy_since_s: float = math.inf) -> None:
        """Serve the queue up to ``now``.

        Args:
            now: the present.
            busy_since_s: service that an emptied queue did not use is lost, except since this
                instant: for bytes that the caller knows were waiting outside a full queue.
        """
        while (entry := self._waiting.head()) is not None:
            if not self._serve(entry, now):
                return
        self._clock_s = max(self._clock_s, min(busy_since_s, now))
        self._credit_bytes = 0.0

    def pop_due(self, now: float) -> Iterator[Delivery]:
        """Deliveries that have reached the far side, in order."""
        while self._flying and self._flying[0].at_s <= now:
            delivery = self._flying.popleft()
            self._flying_bytes -= delivery.size_bytes
            yield delivery

    def next_event_s(self) -> float:
        """When something happens next without new input; infinite if nothing will.

        At that time ``advance`` makes progress or ``pop_due`` yields.
        """
        landing_s = self._flying[0].at_s if self._flying else math.inf
        entry = self._waiting.head()
        if entry is None:
            return landing_s
        return min(landing_s, self._finish_s(min(entry.left_bytes, SEGMENT_BYTES)))

    def set_schedule(self, schedule: RateSchedule, now: float) -> None:
        """Replace the rate from ``now`` on; the new schedule's time 0 is ``now``."""
        self._settle(now)
        self._schedule = schedule
        self._epoch_s = now

    def start_outage(self, duration_s: float, now: float) -> None:
        """Serve nothing for ``duration_s``; the schedule's time runs on meanwhile.

        What is already on its way arrives.

        Raises:
            SettingsError: the duration is negative or not finite.
        """
        if not math.isfinite(duration_s) or duration_s < 0:
            raise SettingsError(f"An outage lasts a finite time ≥ 0 s, got {duration_s}.")
        self._settle(now)
        self._blocked_until_s = max(self._blocked_until_s, now + duration_s)

    def drop_flow(self, flow: FlowId) -> None:
        """Forget everything of a flow whose connection is gone."""
        head = self._waiting.head()
        if head is not None and head.flow == flow:
            self._credit_bytes = 0.0
        self._waiting.drop(flow)
        self._flying = deque(delivery for delivery in self._flying if delivery.flow != flow)
        self._flying_bytes = sum(delivery.size_bytes for delivery in self._flying)

    def _serve(self, entry: Entry, now: float) -> bool:
        """Serve the head entry up to ``now``; False when it must wait."""
        piece_bytes = entry.left_bytes
        if self._finish_s(piece_bytes) > now:
            served = self._served_bytes(now) + ROUNDING_BYTES
            piece_bytes = min(int(served), entry.left_bytes - 1)
            if piece_bytes < SEGMENT_BYTES:
                return False
        full_turn_bytes = self._full_turn_bytes()
        piece_bytes = min(piece_bytes, self._waiting.turn_bytes(full_turn_bytes))
        finish_s = min(self._finish_s(piece_bytes), now)
        self._clock_s = max(finish_s, self._clock_s)
        self._credit_bytes = 0.0
        # `take` changes the entry, so what it was is noted first.
        ending = entry.ending if piece_bytes == entry.left_bytes else None
        self._waiting.take(piece_bytes, full_turn_bytes)
        self._launch(entry.flow, piece_bytes, ending)
        return True

    def _service_start_s(self) -> float:
        return max(self._clock_s, self._blocked_until_s)

    def _served_bytes(self, now: float) -> float:
        """Service the head entry has had by ``now`` and not yet been given."""
        start_s = self._service_start_s() - self._epoch_s
        bits = self._schedule.bits_between(start_s, now - self._epoch_s)
        return bits / BITS_PER_BYTE + self._credit_bytes

    def _finish_s(self, size_bytes: int) -> float:
        needed = max(size_bytes - self._credit_bytes, 0.0)
        start_s = self._service_start_s() - self._epoch_s
        return self._epoch_s + self._schedule.finish_time(start_s, needed)

    def _settle(self, now: float) -> None:
        """Bank the head entry's unfinished service, so that a change of rate is exact."""
        self.advance(now)
        if self._waiting.head() is not None:
            self._credit_bytes = self._served_bytes(now)
            self._clock_s = max(self._clock_s, now)

    def _launch(self, flow: FlowId, size_bytes: int, ending: Ending | None) -> None:
        """Put a piece on its way; it lands after the delay and never before the one ahead."""
        late_s = self._jitter.late_s(self._clock_s - self._jitter_epoch_s)
        at_s = self._clock_s + self._config.delay_s + late_s
        self._flying.append(Delivery(flow, size_bytes, at_s, ending))
        self._flying_bytes += size_bytes

    def _full_turn_bytes(self) -> int:
        bits_per_s = self._schedule.rate_mbps(self._clock_s - self._epoch_s) * BITS_PER_MEGABIT
        return max(int(bits_per_s * FAIR_TURN_S / BITS_PER_BYTE), SEGMENT_BYTES)

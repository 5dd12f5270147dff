"""From sent offsets and cumulative acks to goodput observations.

A written byte is not a delivered byte (a writer may run megabytes ahead of the link), so rates come
from acks alone. A window of acks counts fully only if bytes were under way all through it. One in
which the sender waited for credit while no queue stood at the bottleneck is *credit-limited*: only
a lower bound. Pauses, in which everything sent had arrived, lie between windows, never in one.

This module owns that bookkeeping for one session. It does not know the estimator, gRPC or a clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, NamedTuple

from scout_core.control.samples import TransferSample
from scout_core.errors import LocalProtocolError

MICROSECOND: Final = 1e-6
QUEUE_FACTOR: Final = 1.25
"""A round trip beyond this multiple of the smallest one shows a queue at the bottleneck."""
QUEUE_SLACK_S: Final = 0.002
SHORTEST_BURST_S: Final = 0.02
"""A burst's time is known only to the jitter of a round trip; below this it says nothing."""
SHORTEST_SILENCE_S: Final = 0.1
SILENCE_FACTOR: Final = 2.0


@dataclass(frozen=True, slots=True)
class AckWindow:
    """When a window of acks is long enough to become an observation.

    Attributes:
        shortest_s: a window closes after this time at the earliest…
        smallest_bytes: …and only with at least these bytes in it…
        longest_s: …but in any case after this time (a stalled link is news as well).
    """

    shortest_s: float = 0.05
    smallest_bytes: int = 16_384
    longest_s: float = 1.0


class _Sent(NamedTuple):
    offset_end: int
    at_s: float


class AckTracker:
    """Watches one session's payload stream.

    ``on_sent`` and ``on_ack`` must be called in the order in which things happened. Times are
    seconds of one monotonic clock; ``arrival_us`` is the receiver's own clock, of which only
    differences are used (they exclude the jitter of the acks' way back).

    Args:
        window: when an observation is due.
        resume_offset: bytes the receiver already holds.
        round_trip_s: smallest round trip known from the control channel, 0 if unknown.
    """

    def __init__(
        self,
        window: AckWindow | None = None,
        resume_offset: int = 0,
        round_trip_s: float = 0.0,
    ) -> None:
        self._window = window or AckWindow()
        self._sent: deque[_Sent] = deque()
        self._sent_bytes = resume_offset
        self._acked_bytes = resume_offset
        self._window_bytes = resume_offset
        self._window_start_s: float | None = None
        self._burst_started_s = 0.0
        self._busy_from_s = 0.0
        self._busy_s = 0.0
        self._heard_s = 0.0
        self._presumed_bytes = resume_offset
        self._credit_blocked = False
        self._queue_seen = False
        self._round_trip_s: float | None = round_trip_s or None

    @property
    def in_flight_bytes(self) -> int:
        """Bytes handed to the transport and not yet acknowledged."""
        return self._sent_bytes - self._acked_bytes

    @property
    def busy_s(self) -> float:
        """Time in which something was under way; up to the last ack that left nothing in flight.

        What a forecast of the transfer's time is compared with: a sender that had nothing to send
        for a while did not make the link slower.
        """
        return self._busy_s

    @property
    def round_trip_s(self) -> float | None:
        """Smallest time from a chunk's sending to its ack, or None before the first ack."""
        return self._round_trip_s

    def on_sent(self, offset_end: int, now: float) -> None:
        """A chunk that ends at ``offset_end`` was handed to the transport.

        Raises:
            LocalProtocolError: chunks were reported twice or out of order.
        """
        if offset_end <= self._sent_bytes:
            raise LocalProtocolError(
                f"A chunk ending at {offset_end} was reported sent after {self._sent_bytes}; "
                "report every chunk once, in order."
            )
        if self._sent_bytes == self._acked_bytes:
            self._burst_started_s = self._busy_from_s = now
            self._window_start_s = None
            self._heard_s = now + (self._round_trip_s or 0.0)
        self._sent_bytes = offset_end
        self._sent.append(_Sent(offset_end, now))

    def on_credit_blocked(self) -> None:
        """Payload is ready, but the receiver's credit is used up."""
        self._credit_blocked = True

    def on_ack(self, received_bytes: int, now: float, arrival_us: int = 0) -> TransferSample | None:
        """The receiver holds ``received_bytes`` without a gap; an observation, if one is due.

        Args:
            received_bytes: cumulative count.
            now: when the ack arrived here.
            arrival_us: the receiver's clock when the bytes arrived there; 0 if it sent none.

        Raises:
            LocalProtocolError: more was acknowledged than was reported sent.
        """
        if received_bytes > self._sent_bytes:
            raise LocalProtocolError(
                f"{received_bytes} bytes were acknowledged, but only {self._sent_bytes} sent."
            )
        if received_bytes <= self._acked_bytes:
            return None
        known_round_trip_s = self._round_trip_s
        self._acked_bytes = received_bytes
        self._heard_s = now
        if self.in_flight_bytes == 0:
            self._busy_s += max(0.0, now - self._busy_from_s)
        self._note_round_trip(received_bytes, now)
        clock_s = arrival_us * MICROSECOND if arrival_us else now
        if self._window_start_s is None:
            sample = self._first_of_burst(now, known_round_trip_s)
            self._restart(clock_s)
            return sample
        return self._close_if_due(clock_s, now)

    def on_silence(self, now: float, expected_bytes_per_s: float) -> TransferSample | None:
        """To be asked now and then while nothing arrives: what the silence says, if anything.

        Acks come once a chunk, so a slow link is silent between them, too. The silence is news once
        the chunk under way would have arrived twice over at the expected rate; it then counts as if
        that chunk arrived this moment, which is the most that can be true.

        Args:
            now: the current time.
            expected_bytes_per_s: what the link is believed to carry.
        """
        quiet_s = now - self._heard_s
        if self.in_flight_bytes == 0 or quiet_s < SHORTEST_SILENCE_S:
            return None
        held = max(self._acked_bytes, self._presumed_bytes)
        chunk_end = next((sent.offset_end for sent in self._sent if sent.offset_end > held), held)
        if SILENCE_FACTOR * (chunk_end - held) > expected_bytes_per_s * quiet_s:
            return None
        self._presumed_bytes = self._window_bytes = chunk_end
        self._heard_s = now
        self._window_start_s = None
        self._burst_started_s = now - (self._round_trip_s or 0.0)
        return TransferSample(
            payload_bytes=chunk_end - held,
            duration_s=quiet_s,
            application_limited=False,
            at_s=now,
        )

    def _note_round_trip(self, received_bytes: int, now: float) -> None:
        while self._sent and self._sent[0].offset_end <= received_bytes:
            round_trip_s = max(0.0, now - self._sent.popleft().at_s)
            smallest = self._round_trip_s
            if smallest is None or round_trip_s < smallest:
                self._round_trip_s = round_trip_s
            elif round_trip_s > QUEUE_FACTOR * smallest + QUEUE_SLACK_S:
                self._queue_seen = True

    def _first_of_burst(self, now: float, round_trip_s: float | None) -> TransferSample | None:
        """What the first ack after a pause says: its bytes against the time beyond a round trip."""
        if round_trip_s is None:
            return None
        duration_s = now - self._burst_started_s - round_trip_s
        payload_bytes = self._acked_bytes - self._window_bytes
        if duration_s < SHORTEST_BURST_S or payload_bytes <= 0:
            return None
        return TransferSample(
            payload_bytes=payload_bytes,
            duration_s=duration_s,
            application_limited=False,
            at_s=now,
        )

    def _restart(self, clock_s: float) -> None:
        self._window_start_s = clock_s
        self._window_bytes = self._presumed_bytes = self._acked_bytes
        self._credit_blocked = False
        self._queue_seen = False

    def _close_if_due(self, clock_s: float, now: float) -> TransferSample | None:
        if self._window_start_s is None:
            return None
        duration_s = clock_s - self._window_start_s
        delivered = self._acked_bytes - self._window_bytes
        due = duration_s >= self._window.shortest_s and (
            delivered >= self._window.smallest_bytes or duration_s >= self._window.longest_s
        )
        if duration_s <= 0.0 or not (due or self.in_flight_bytes == 0):
            return None
        sample = TransferSample(
            payload_bytes=delivered,
            duration_s=duration_s,
            application_limited=self._credit_blocked and not self._queue_seen,
            at_s=now,
        )
        self._restart(clock_s)
        return sample

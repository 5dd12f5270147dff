"""The edge's payload on its way: what is sent next, in which chunks, and what is sent again.

This module joins the payload buffer, the credit ledger and the running digest. It does not know
the session's states; ``edge_session`` calls it only when a stream stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scout_core.errors import LocalProtocolError
from scout_core.protocol.actions import EdgeAction, SendChunk, SendFinish, SendSwitch
from scout_core.protocol.arrival_rate import ArrivalRate
from scout_core.protocol.checksum import PayloadDigest, chunk_checksum
from scout_core.protocol.credit import KIB, MIN_ROUND_TRIP_S, WINDOW_MAX_BYTES, CreditLedger
from scout_core.protocol.events import ModeSwitched
from scout_core.protocol.payload_buffer import PayloadBuffer
from scout_core.protocol.reassembly import MAX_CHUNK_BYTES

CHUNK_MIN_BYTES = 16 * KIB
CHUNK_SPAN_S = 0.005
"""A chunk takes at most about this long on the link (down to ``CHUNK_MIN_BYTES``), so that acks
come often on a slow link: at 0.1 Mbit/s a chunk of 256 KiB would take 21 s and look like a dead
peer."""


RUNT_SHARE = 16
"""What is left over and smaller than this share of a chunk goes with the chunk before it: a block
of 1 MiB and a header of 9 bytes is four messages, not five."""


@dataclass(frozen=True, slots=True)
class SendPolicy:
    """``chunk_bytes`` is the size of a chunk on a fast link; the last of a run may be a sixteenth
    longer. ``initial_credit_bytes`` comes from the registration and lets payload follow Open at
    once."""

    chunk_bytes: int = 256 * KIB
    initial_credit_bytes: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.chunk_bytes <= MAX_CHUNK_BYTES:
            raise LocalProtocolError(
                f"chunk_bytes must be in 1..{MAX_CHUNK_BYTES}, got {self.chunk_bytes}."
            )
        if not 0 <= self.initial_credit_bytes <= WINDOW_MAX_BYTES:
            raise LocalProtocolError(
                f"initial_credit_bytes must be in 0..{WINDOW_MAX_BYTES}, "
                f"got {self.initial_credit_bytes}."
            )


class PayloadSender:
    """Buffer, ledger and digest of one payload."""

    def __init__(self, policy: SendPolicy) -> None:
        self._policy = policy
        self._buffer = PayloadBuffer()
        self._ledger = CreditLedger(policy.initial_credit_bytes)
        self._digest = PayloadDigest()
        self._sent_ever = 0
        self._switches: list[SendSwitch] = []
        self._switches_sent = 0
        self._ended = False
        self._finish_sent = False
        self._finished_ever = False
        self._progress_at: float | None = None
        self._ack_rate = ArrivalRate(MIN_ROUND_TRIP_S)

    @property
    def unsent_bytes(self) -> int:
        return self._buffer.end - self._ledger.sent

    @property
    def unacked_bytes(self) -> int:
        return self._ledger.unacked

    @property
    def acked_bytes(self) -> int:
        return self._ledger.acked

    @property
    def appended_bytes(self) -> int:
        return self._buffer.end

    @property
    def held_bytes(self) -> int:
        return self._buffer.held_bytes

    @property
    def finish_sent(self) -> bool:
        """Whether Finish went out on the present stream."""
        return self._finish_sent

    @property
    def progress_at(self) -> float | None:
        """When an ack last advanced or the first un-acked byte left; None: all is acked."""
        return self._progress_at

    @property
    def earliest_switch_offset(self) -> int:
        return self._buffer.boundary_from(self._sent_ever)

    def expect_round_trip(self, round_trip_s: float) -> None:
        """Sets the span over which acks are averaged."""
        self._ack_rate = ArrivalRate(max(round_trip_s, MIN_ROUND_TRIP_S))

    def append(self, data: bytes) -> None:
        """Raises:
        LocalProtocolError: the payload has ended.
        """
        if self._ended:
            raise LocalProtocolError("The payload has ended; nothing can be appended.")
        self._buffer.append(data)

    def end(self) -> None:
        """Raises:
        LocalProtocolError: it has ended before.
        """
        if self._ended:
            raise LocalProtocolError("The payload has ended already.")
        self._ended = True

    def switch(self, event: ModeSwitched) -> None:
        """Records a switch, withdrawing appended data from its offset on; re-opens the payload.

        The message goes out when the stream reaches the offset, so that a later switch can still
        withdraw it.

        Raises:
            LocalProtocolError: Finish was sent, or the offset is not an append boundary at or
                beyond everything that was ever sent.
        """
        if self._finished_ever:
            raise LocalProtocolError("The payload is finished; its mode cannot change any more.")
        offset = self._buffer.end if event.offset is None else event.offset
        if offset < self._sent_ever:
            raise LocalProtocolError(
                f"A switch at {offset} is too early; {self._sent_ever} bytes were sent already."
            )
        self._buffer.truncate(offset)
        self._ended = False
        while self._switches and self._switches[-1].offset >= offset:
            self._switches.pop()
        self._switches.append(SendSwitch(event.mode, event.retention, offset, event.cause))

    def credit(self, limit_bytes: int) -> None:
        """Raises:
        RemoteProtocolError: the limit decreased.
        """
        self._ledger.grant(limit_bytes)

    def acked(self, received_bytes: int, now: float) -> None:
        """Raises:
        RemoteProtocolError: the ack goes backwards or beyond what was sent.
        """
        before = self._ledger.acked
        self._ledger.record_acked(received_bytes)
        self._ack_rate.observe(received_bytes, now)
        if received_bytes > before:
            self._buffer.release(received_bytes)
            self._progress_at = now if self._ledger.unacked else None

    def pump(self, now: float) -> Sequence[EdgeAction]:
        """Everything that credit allows now, and Finish behind the last byte."""
        actions: list[EdgeAction] = []
        chunk_bytes = self._chunk_bytes()
        longest = min(chunk_bytes + chunk_bytes // RUNT_SHARE, MAX_CHUNK_BYTES)
        ledger, end = self._ledger, self._buffer.end
        while (sendable := min(ledger.available, end - ledger.sent)) > 0:
            size = sendable if sendable <= longest else chunk_bytes
            actions += self._due_switches(ledger.sent + size)
            actions.append(self._next_chunk(size, now))
        if self._ended and not self._finish_sent and ledger.sent == end:
            actions += self._due_switches(end + 1)
            self._finish_sent = self._finished_ever = True
            actions.append(SendFinish(end, self._digest.digest()))
        return actions

    def count_progress_from(self, now: float) -> None:
        """The cloud was heard for the first time on this stream."""
        self._progress_at = now if self._ledger.unacked else None

    def resume(self, offset: int, limit_bytes: int) -> None:
        """Goes back to ``offset`` on a new stream; switches it may have lost are sent again.

        Raises:
            RemoteProtocolError: see ``CreditLedger.resume``.
        """
        self._ledger.resume(offset, limit_bytes)
        self._buffer.release(offset)
        self._finish_sent = False
        self._progress_at = None
        self._ack_rate.restart()
        self._switches_sent = sum(switch.offset < offset for switch in self._switches)

    def clear(self) -> None:
        """Frees the payload; the session is over."""
        self._buffer.clear()

    def _due_switches(self, end_offset: int) -> Sequence[SendSwitch]:
        """Switches that hold for a byte before ``end_offset`` and were not sent yet."""
        first = self._switches_sent
        while (
            self._switches_sent < len(self._switches)
            and self._switches[self._switches_sent].offset < end_offset
        ):
            self._switches_sent += 1
        return self._switches[first : self._switches_sent]

    def _next_chunk(self, size: int, now: float) -> SendChunk:
        offset = self._ledger.sent
        data = self._buffer.read(offset, size)
        if self._ledger.unacked == 0:
            self._progress_at = now
        self._ledger.record_sent(size)
        if self._ledger.sent > self._sent_ever:
            # Bytes sent again after a resume are in the digest already.
            fresh = self._sent_ever - offset
            self._digest.update(data if fresh == 0 else memoryview(data)[fresh:])
            self._sent_ever = self._ledger.sent
        return SendChunk(offset, data, chunk_checksum(data))

    def _chunk_bytes(self) -> int:
        span_bytes = int(self._ack_rate.bytes_per_s * CHUNK_SPAN_S)
        return min(max(span_bytes, CHUNK_MIN_BYTES), self._policy.chunk_bytes)

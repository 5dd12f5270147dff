"""The edge's payload on its way: what is sent next, in which chunks, and what is sent again.

This module joins the payload buffer, the credit ledger and the record of chunks. It gives one
message at a time, when the stream can take it: a chunk is cut and hashed only then, so that a
switch can still withdraw what waits, and its bytes are in the cache when they are copied. It does
not know the session's states; ``edge_session`` calls it only when a stream stands.
"""

from __future__ import annotations

from dataclasses import dataclass

from scout_core.errors import LocalProtocolError
from scout_core.protocol.actions import PayloadSend, SendChunk, SendFinish, SendSwitch
from scout_core.protocol.arrival_rate import ArrivalRate
from scout_core.protocol.checksum import chunk_checksum
from scout_core.protocol.chunk_record import ChunkRecord
from scout_core.protocol.credit import (
    EARLY_SAMPLE_S,
    KIB,
    MIN_ROUND_TRIP_S,
    WINDOW_MAX_BYTES,
    CreditLedger,
)
from scout_core.protocol.events import ModeSwitched
from scout_core.protocol.payload_buffer import PayloadBuffer
from scout_core.protocol.reassembly import MAX_CHUNK_BYTES

DEFAULT_CHUNK_BYTES = 512 * KIB
"""For links of 100 MB/s and more: a message costs both ends some 100 us whatever it carries, and
one of 512 KiB keeps an event loop for less than a millisecond."""
CHUNK_MIN_BYTES = 16 * KIB
CHUNK_SPAN_S = 0.005
"""A chunk takes at most about this long on the link (down to ``CHUNK_MIN_BYTES``), so that acks
come often on a slow link: at 0.1 Mbit/s a chunk of 256 KiB would take 21 s and look like a dead
peer."""
GATHERED_SHARE = 4
"""What is left of a block and is smaller than this share of a chunk shares its chunk with the block
behind it, which costs a copy; larger ones are cut for themselves."""
PATIENT_CHUNK_BYTES = 256 * KIB
"""From this size on a chunk is not cut short by credit while more is sure to come: a message costs
the same whatever it carries."""


def even_cut(rest_bytes: int, longest_bytes: int) -> int:
    """Size of the first of the fewest chunks, all but equal, that make up ``rest_bytes``."""
    chunks = -(-rest_bytes // longest_bytes)
    return -(-rest_bytes // chunks)


@dataclass(frozen=True, slots=True)
class SendPolicy:
    """``chunk_bytes`` is the largest chunk, for fast links. ``initial_credit_bytes`` comes from the
    registration and lets payload follow Open at once."""

    chunk_bytes: int = DEFAULT_CHUNK_BYTES
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
    """Buffer, ledger and record of one payload."""

    def __init__(self, policy: SendPolicy) -> None:
        self._policy = policy
        self._buffer = PayloadBuffer()
        self._ledger = CreditLedger(policy.initial_credit_bytes)
        self._record = ChunkRecord()
        self._sent_ever = 0
        self._switches: list[SendSwitch] = []
        self._switches_sent = 0
        self._ended = False
        self._finish_sent = False
        self._finished_ever = False
        self._progress_at: float | None = None
        self._ack_rate = ArrivalRate(MIN_ROUND_TRIP_S)
        self._longest = min(CHUNK_MIN_BYTES, policy.chunk_bytes)

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
    def is_credit_blocked(self) -> bool:
        """Whether payload is ready and waits for credit."""
        return self.unsent_bytes > 0 and self._next_size(self._ledger.sent) == 0

    @property
    def spare_credit_bytes(self) -> int:
        """Credit beyond all that was appended; below 0: so much waits for more."""
        return self._ledger.limit - self._buffer.end

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
    def finished_ever(self) -> bool:
        """Whether Finish went out on any stream."""
        return self._finished_ever

    @property
    def progress_at(self) -> float | None:
        """When an ack last advanced or the first un-acked byte left; None: all is acked."""
        return self._progress_at

    @property
    def earliest_switch_offset(self) -> int:
        return self._buffer.boundary_from(self._sent_ever)

    def expect_round_trip(self, round_trip_s: float) -> None:
        """Sets the span over which acks are averaged."""
        self._ack_rate = ArrivalRate(
            max(round_trip_s, MIN_ROUND_TRIP_S), max(round_trip_s, EARLY_SAMPLE_S)
        )

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
        self._note_rate(received_bytes, now)
        if received_bytes > before:
            self._buffer.release(received_bytes)
            self._record.acked(received_bytes)
            self._progress_at = now if self._ledger.unacked else None

    def next_send(self, now: float) -> PayloadSend | None:
        """The next message that credit allows, which the caller must send: a chunk, a switch that
        holds for a byte of it, or Finish behind the last byte. None: nothing now."""
        sent, end = self._ledger.sent, self._buffer.end
        if sent < end:
            size = self._next_size(sent)
            if size == 0:
                return None
            if self._switches_sent < len(self._switches):
                switch = self._due_switch(sent + size)
                if switch is not None:
                    return switch
            return self._next_chunk(sent, size, now)
        if not self._ended or self._finish_sent or sent != end:
            return None
        switch = self._due_switch(end + 1)
        if switch is not None:
            return switch
        self._finish_sent = self._finished_ever = True
        return SendFinish(end, self._record.digest())

    def count_progress_from(self, now: float) -> None:
        """The cloud was heard for the first time on this stream."""
        self._progress_at = now if self._ledger.unacked else None

    def resume(self, offset: int, limit_bytes: int) -> None:
        """Goes back to ``offset`` on a new stream; switches it may have lost are sent again.

        Raises:
            RemoteProtocolError: see ``CreditLedger.resume`` and ``ChunkRecord.resume``.
        """
        self._ledger.resume(offset, limit_bytes)
        self._record.resume(offset)
        self._buffer.release(offset)
        self._finish_sent = False
        self._progress_at = None
        self._ack_rate.restart()
        self._switches_sent = sum(switch.offset < offset for switch in self._switches)

    def clear(self) -> None:
        """Frees the payload; the session is over."""
        self._buffer.clear()

    def _due_switch(self, end_offset: int) -> SendSwitch | None:
        """The next switch that was not sent yet, if it holds for a byte before ``end_offset``."""
        if self._switches_sent == len(self._switches):
            return None
        switch = self._switches[self._switches_sent]
        if switch.offset >= end_offset:
            return None
        self._switches_sent += 1
        return switch

    def _next_chunk(self, offset: int, size: int, now: float) -> SendChunk:
        data = self._buffer.read(offset, size)
        checksum = chunk_checksum(data)
        if self._ledger.unacked == 0:
            self._progress_at = now
        self._ledger.record_sent(size)
        end_offset = offset + size
        self._record.sent(end_offset, checksum)
        self._sent_ever = max(self._sent_ever, end_offset)
        return SendChunk(offset, data, checksum)

    def _next_size(self, sent: int) -> int:
        """Bytes of the next chunk, behind the ``sent`` ones; 0: not before there is more credit."""
        rest_of_block = self._buffer.boundary_from(sent + 1) - sent
        longest = self._longest
        if rest_of_block * GATHERED_SHARE >= longest:
            size = even_cut(rest_of_block, longest)
        else:
            size = min(longest, self._buffer.end - sent)
        available = self._ledger.available
        if available >= size:
            return size
        is_patient = size >= PATIENT_CHUNK_BYTES and self._ledger.unacked >= size
        return 0 if is_patient else available

    def _note_rate(self, received_bytes: int, now: float) -> None:
        """What the acks say of the link, and how long a chunk may be on it."""
        if self._ack_rate.observe(received_bytes, now):
            span_bytes = int(self._ack_rate.bytes_per_s * CHUNK_SPAN_S)
            self._longest = min(max(span_bytes, CHUNK_MIN_BYTES), self._policy.chunk_bytes)

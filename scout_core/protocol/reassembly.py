"""Chunks in any order, size and overlap become one contiguous stream.

This module owns the order of bytes, their checksums and the digest made of these: one entry for
each part of a chunk that was new when it came, which is the whole chunk unless the sender overlaps
them. It does not know blocks or sessions, and
credit only as the bound that its caller checks: what waits behind a gap never overlaps, so it is
at most ``limit − received`` bytes.
"""

from __future__ import annotations

from bisect import bisect_right

from scout_core.errors import ChunkError
from scout_core.protocol.checksum import PayloadDigest, chunk_checksum

MAX_CHUNK_BYTES = 1 << 20
MAX_WAITING_SEGMENTS = 1024
"""Segments that may wait behind gaps. One stream delivers in order; more than a few are abuse."""

Piece = bytes | memoryview


class Reassembler:
    """Puts chunks in order and checks them.

    Attributes:
        received: bytes received without a gap; to be read, not set.
    """

    def __init__(self) -> None:
        self.received = 0
        self._digest = PayloadDigest()
        self._starts: list[int] = []
        self._segments: list[memoryview] = []
        self._waiting_bytes = 0

    @property
    def waiting_bytes(self) -> int:
        """Bytes kept behind a gap."""
        return self._waiting_bytes

    def digest(self) -> bytes:
        """The digest of the contiguous bytes, see ``PayloadDigest``."""
        return self._digest.digest()

    def add(self, offset: int, data: Piece, checksum: int) -> tuple[Piece, ...]:
        """Takes one chunk; returns what became contiguous, in order.

        Bytes before ``received`` are dropped: they were handed on and cannot be compared. The
        caller has checked the chunk's end against the credit.

        Raises:
            ChunkError: size outside 1..1 MiB, negative offset, wrong checksum, a contradiction
                with bytes that wait, or too many gaps. Nothing of the chunk is kept then.
        """
        if not 1 <= len(data) <= MAX_CHUNK_BYTES or offset < 0:
            raise ChunkError(
                f"A chunk must have 1..{MAX_CHUNK_BYTES} bytes at an offset ≥ 0, "
                f"got {len(data)} at {offset}."
            )
        if chunk_checksum(data) != checksum:
            raise ChunkError(f"Checksum of the chunk at {offset} is wrong; send it again.")
        if offset == self.received and not self._starts:
            return (self._consume(data, checksum),)
        end = offset + len(data)
        if end <= self.received:
            return ()
        view = memoryview(data)
        if offset < self.received:
            view = view[self.received - offset :]
            offset = self.received
        self._keep_missing(offset, view, len(data))
        return self._take_ready()

    def drop_waiting(self) -> None:
        """Forgets what waits behind a gap: a resumed stream sends it again."""
        self._starts.clear()
        self._segments.clear()
        self._waiting_bytes = 0

    def _consume(self, piece: Piece, checksum: int) -> Piece:
        self.received += len(piece)
        self._digest.add(self.received, checksum)
        return piece

    def _keep_missing(self, offset: int, view: memoryview, chunk_bytes: int) -> None:
        """Compares the overlap with waiting segments, then keeps the parts that are new."""
        end = offset + len(view)
        index = max(bisect_right(self._starts, offset) - 1, 0)
        missing: list[tuple[int, memoryview]] = []
        cursor = offset
        while index < len(self._starts) and self._starts[index] < end:
            start, segment = self._starts[index], self._segments[index]
            low, high = max(start, cursor), min(start + len(segment), end)
            index += 1
            if high <= low:
                continue
            if view[low - offset : high - offset] != segment[low - start : high - start]:
                raise ChunkError(f"The chunk at {offset} contradicts bytes received at {low}.")
            if low > cursor:
                missing.append((cursor, view[cursor - offset : low - offset]))
            cursor = high
        if cursor < end:
            missing.append((cursor, view[cursor - offset :]))
        if len(self._starts) + len(missing) > MAX_WAITING_SEGMENTS:
            raise ChunkError("Too many gaps in the payload stream; send chunks in order.")
        for start, part in missing:
            # A part of a chunk is copied: a view would keep the whole chunk alive behind the
            # gap, beyond what the credit bounds.
            self._insert(start, part if len(part) == chunk_bytes else memoryview(bytes(part)))

    def _insert(self, start: int, kept: memoryview) -> None:
        index = bisect_right(self._starts, start)
        self._starts.insert(index, start)
        self._segments.insert(index, kept)
        self._waiting_bytes += len(kept)

    def _take_ready(self) -> tuple[Piece, ...]:
        ready: list[Piece] = []
        taken = 0
        while taken < len(self._starts) and self._starts[taken] == self.received:
            segment = self._segments[taken]
            self._waiting_bytes -= len(segment)
            # Hashed again, as it may be a part; chunks of one stream come in order and whole.
            ready.append(self._consume(segment, chunk_checksum(segment)))
            taken += 1
        del self._starts[:taken]
        del self._segments[:taken]
        return tuple(ready)

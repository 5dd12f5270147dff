"""The edge's payload: appended as it is produced, read in chunks, kept until it is acked.

Pieces stay as the application made them; a chunk within one piece is a view of it and costs no
copy, any other costs one. This module knows neither credit nor blocks.
"""

from __future__ import annotations

from bisect import bisect_right

from scout_core.errors import LocalProtocolError

_COMPACT_AFTER_PIECES = 64


class PayloadBuffer:
    """Bytes [released, end) of the payload stream.

    Attributes:
        end: bytes appended in total; to be read, not set.
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._starts: list[int] = []
        self._first = 0
        self._released = 0
        self.end = 0

    @property
    def held_bytes(self) -> int:
        """Bytes kept alive: whole pieces of which something is not released."""
        if self._first >= len(self._starts):
            return 0
        return self.end - self._starts[self._first]

    def append(self, data: bytes) -> None:
        """Keeps a reference to ``data``; empty data is dropped."""
        if data:
            self._pieces.append(data)
            self._starts.append(self.end)
            self.end += len(data)

    def read(self, offset: int, size: int) -> bytes | memoryview:
        """``size`` bytes from ``offset``.

        Raises:
            LocalProtocolError: the range was released or not appended yet.
        """
        if not (self._released <= offset and 0 < size <= self.end - offset):
            raise LocalProtocolError(
                f"Payload bytes {offset}..{offset + size} are not in {self._released}..{self.end}."
            )
        index = bisect_right(self._starts, offset) - 1
        piece, skip = self._pieces[index], offset - self._starts[index]
        if skip + size <= len(piece):
            return piece if size == len(piece) else memoryview(piece)[skip : skip + size]
        parts: list[memoryview] = [memoryview(piece)[skip:]]
        missing = size - len(parts[0])
        while missing > 0:
            index += 1
            part = memoryview(self._pieces[index])[:missing]
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def release(self, offset: int) -> None:
        """Frees pieces that end at or before ``offset``."""
        self._released = max(self._released, min(offset, self.end))
        while self._first < len(self._pieces):
            piece_end = self._starts[self._first] + len(self._pieces[self._first])
            if piece_end > self._released:
                break
            self._pieces[self._first] = b""
            self._first += 1
        if self._first >= _COMPACT_AFTER_PIECES and 2 * self._first >= len(self._pieces):
            del self._pieces[: self._first]
            del self._starts[: self._first]
            self._first = 0

    def boundary_from(self, offset: int) -> int:
        """The first boundary between two appends at or after ``offset``; at most ``end``."""
        index = bisect_right(self._starts, offset - 1)
        return self._starts[index] if index < len(self._starts) else self.end

    def truncate(self, offset: int) -> None:
        """Withdraws everything from ``offset`` on, which must be a boundary between two appends.

        Raises:
            LocalProtocolError: it is not one, or lies before what was released.
        """
        if offset < self._released or self.boundary_from(offset) != offset:
            raise LocalProtocolError(f"Payload offset {offset} is not between two appends.")
        index = bisect_right(self._starts, offset - 1)
        del self._pieces[index:]
        del self._starts[index:]
        self.end = offset

    def clear(self) -> None:
        """Frees everything; ``end`` stays."""
        self._pieces.clear()
        self._starts.clear()
        self._first = 0
        self._released = self.end

"""The sender's record of its chunks: what the digest of the payload will be made of.

A lost stream may take the last chunks with it, and on the next one the same bytes may be cut in
other ways. So a chunk counts for good only when it was acked; those behind it can be taken back.
This module knows no bytes, only where chunks ended and what their checksums were.
"""

from __future__ import annotations

from collections import deque

from scout_core.errors import RemoteProtocolError
from scout_core.protocol.checksum import PayloadDigest


class ChunkRecord:
    """Ends and checksums of the chunks sent, in stream order."""

    def __init__(self) -> None:
        self._acked = PayloadDigest()
        self._acked_end = 0
        self._unacked: deque[tuple[int, int]] = deque()

    def sent(self, end_offset: int, checksum: int) -> None:
        """Notes the next chunk."""
        self._unacked.append((end_offset, checksum))

    def acked(self, offset: int) -> None:
        """Everything before ``offset`` has arrived as it was sent."""
        while self._unacked and self._unacked[0][0] <= offset:
            end_offset, checksum = self._unacked.popleft()
            self._acked.add(end_offset, checksum)
            self._acked_end = end_offset

    def resume(self, offset: int) -> None:
        """Forgets the chunks behind ``offset``: their bytes are sent again.

        Raises:
            RemoteProtocolError: the offset is inside a chunk, where no receiver can stand.
        """
        self.acked(offset)
        if self._acked_end != offset:
            raise RemoteProtocolError(
                f"Cannot resume at {offset}, inside the chunk behind {self._acked_end}; "
                "a receiver has whole chunks."
            )
        self._unacked.clear()

    def digest(self) -> bytes:
        """The payload's digest so far."""
        whole = self._acked.copy()
        for end_offset, checksum in self._unacked:
            whole.add(end_offset, checksum)
        return whole.digest()

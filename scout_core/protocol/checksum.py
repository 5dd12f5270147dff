"""The hashes of the wire: xxh3-64 of a chunk, and a payload's digest made of them.

Every byte is hashed once at each end: the digest is an xxh3-128 over the checksums of the chunks,
which were compared one by one, and not over the bytes again. They find damage, not malice; whoever
may send at all is the business of TLS and tokens.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, Self

import xxhash

DIGEST_BYTES = 16
_ENTRY: Final = struct.Struct(">QQ")


chunk_checksum: Final[Callable[[bytes | memoryview], int]] = xxhash.xxh3_64_intdigest
"""xxh3-64 of one chunk."""


class PayloadDigest:
    """xxh3-128 (canonical, big-endian) over one entry a chunk, in stream order.

    An entry is the offset behind the chunk's last byte and the chunk's xxh3-64, each as eight
    bytes, big end first. So a chunk that is lost, doubled, moved or cut differently shows.
    """

    def __init__(self) -> None:
        self._hash = xxhash.xxh3_128()

    def add(self, end_offset: int, checksum: int) -> None:
        """Adds the chunk that follows those before."""
        self._hash.update(_ENTRY.pack(end_offset, checksum))

    def digest(self) -> bytes:
        """16 bytes over everything so far; more may follow."""
        return self._hash.digest()

    def copy(self) -> Self:
        """One that goes on by itself."""
        twin = type(self)()
        twin._hash = self._hash.copy()
        return twin

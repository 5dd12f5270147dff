"""The hashes of the wire: xxh3-64 of a chunk, xxh3-128 of a payload.

They find damage, not malice; whoever may send at all is the business of TLS and tokens.
"""

from __future__ import annotations

import xxhash

DIGEST_BYTES = 16


def chunk_checksum(data: bytes | memoryview) -> int:
    """xxh3-64 of one chunk."""
    return xxhash.xxh3_64_intdigest(data)


class PayloadDigest:
    """Running xxh3-128 of a payload stream, in canonical (big-endian) byte order."""

    def __init__(self) -> None:
        self._hash = xxhash.xxh3_128()

    def update(self, data: bytes | memoryview) -> None:
        """Adds the next bytes of the stream."""
        self._hash.update(data)

    def digest(self) -> bytes:
        """16 bytes over everything so far; more may follow."""
        return self._hash.digest()

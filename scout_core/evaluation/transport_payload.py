"""The payload of the transport study: encoded KV blocks of about 1 MiB, and the chunks of a peer.

This module owns bytes alone. Blocks repeat after a while, so that a long payload needs little
memory; the ring is larger than the caches of a processor core, as a real cache of KV is.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Final

from scout_core.protocol.blocks import BlockKind, encode_block

KIB: Final = 1024
MIB: Final = 1024 * KIB
RING_BLOCKS: Final = 64
BLOCK_POSITIONS: Final = 48
"""Positions that make about 1 MiB of bf16 KV at 23,040 B a token (SmolLM2-135M)."""
RAW_CODEC_ID: Final = 0
_SEED: Final = 1


@dataclass(frozen=True, slots=True)
class Payload:
    """``ring`` repeated until ``blocks`` blocks were given."""

    ring: tuple[bytes, ...]
    blocks: int
    cut: dict[int, list[bytes]] = field(default_factory=dict[int, list[bytes]], compare=False)
    """The ring in chunks, by their size: cut once, so that it costs a peer nothing."""

    @classmethod
    def of_size(cls, total_bytes: int, block_bytes: int = MIB) -> Payload:
        """At least one block, together at most ``total_bytes`` unless one is longer."""
        count = max(1, total_bytes // block_bytes)
        source = random.Random(_SEED)  # noqa: S311 - bytes that no link compresses, not a secret
        ring = tuple(
            encode_block(
                BlockKind.KV,
                RAW_CODEC_ID,
                index * BLOCK_POSITIONS,
                BLOCK_POSITIONS,
                source.randbytes(block_bytes),
            )
            for index in range(min(count, RING_BLOCKS))
        )
        return cls(ring, count)

    @property
    def total_bytes(self) -> int:
        whole, rest = divmod(self.blocks, len(self.ring))
        lengths = [len(block) for block in self.ring]
        return whole * sum(lengths) + sum(lengths[:rest])

    async def stream(self) -> AsyncIterator[bytes]:
        """The blocks as an edge's source gives them."""
        for block in islice(cycle(self.ring), self.blocks):
            yield block

    def chunks(self, chunk_bytes: int) -> Iterator[bytes]:
        """The same number of bytes in chunks, for a bare stream; the last one is shorter."""
        if chunk_bytes not in self.cut:
            ring = b"".join(self.ring)
            starts = range(0, max(len(ring) - chunk_bytes, 0) + 1, chunk_bytes)
            self.cut[chunk_bytes] = [ring[start : start + chunk_bytes] for start in starts]
        return _limited(self.cut[chunk_bytes], self.total_bytes)


def _limited(cut: list[bytes], total_bytes: int) -> Iterator[bytes]:
    missing = total_bytes
    for chunk in cycle(cut):
        if missing <= len(chunk):
            yield chunk[:missing]
            return
        missing -= len(chunk)
        yield chunk

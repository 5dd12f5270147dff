"""The payload of the transport study: encoded KV blocks, and the chunks that a peer sends.

This module owns bytes alone. Blocks are as long as the edge's are (32 positions of bf16 KV of the
bundled pair) and repeat after a while, so that a long payload needs little memory; the ring is
larger than the caches of a processor, as a real cache of KV is. The chunks are those into which a
session on a fast link cuts the same blocks.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Final

from scout_core.protocol.actions import SendChunk
from scout_core.protocol.blocks import BlockKind, encode_block
from scout_core.protocol.checksum import chunk_checksum
from scout_core.protocol.payload_sender import even_cut
from scout_core.rpc.chunk_wire import encode_chunk

KIB: Final = 1024
MIB: Final = 1024 * KIB
RING_BLOCKS: Final = 64
BLOCK_POSITIONS: Final = 32
"""Positions of the edge's blocks on the wire."""
BLOCK_BYTES: Final = BLOCK_POSITIONS * 23_040
"""bf16 KV of SmolLM2-135M, 23,040 B a position."""
RAW_CODEC_ID: Final = 0
_SEED: Final = 1


@dataclass(frozen=True, slots=True)
class Piece:
    """One chunk of the ring. ``message`` is the SessionRequest that a session sends for it."""

    data: bytes
    checksum: int
    message: bytes


@dataclass(frozen=True, slots=True)
class Payload:
    """``ring`` repeated until ``blocks`` blocks were given."""

    ring: tuple[bytes, ...]
    blocks: int
    _cuts: dict[int, Sequence[Sequence[Piece]]] = field(
        default_factory=dict[int, Sequence[Sequence[Piece]]], compare=False
    )
    """The ring in chunks, by their longest: cut once, so that it costs a peer nothing."""

    @classmethod
    def of_size(cls, total_bytes: int, block_bytes: int = BLOCK_BYTES) -> Payload:
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

    def chunks(self, longest_bytes: int) -> Iterator[Piece]:
        """The same bytes in chunks of at most ``longest_bytes``, for a peer. The offset inside
        ``message`` is that of the ring's first round, in the later ones too."""
        if longest_bytes not in self._cuts:
            self._cuts[longest_bytes] = _cut(self.ring, longest_bytes)
        rounds = cycle(self._cuts[longest_bytes])
        return (piece for pieces in islice(rounds, self.blocks) for piece in pieces)


def _cut(ring: Sequence[bytes], longest_bytes: int) -> Sequence[Sequence[Piece]]:
    cut: list[list[Piece]] = []
    offset = 0
    for block in ring:
        pieces: list[Piece] = []
        start = 0
        while start < len(block):
            data = block[start : start + even_cut(len(block) - start, longest_bytes)]
            checksum = chunk_checksum(data)
            chunk = SendChunk(offset + start, data, checksum)
            pieces.append(Piece(data, checksum, encode_chunk(chunk)))
            start += len(data)
        cut.append(pieces)
        offset += len(block)
    return cut

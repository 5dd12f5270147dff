"""What the study sends: real blocks, and the same number of bytes for every contender."""

from __future__ import annotations

import pytest

from scout_core.evaluation.transport_emulated import EmulatedRow
from scout_core.evaluation.transport_payload import KIB, MIB, RING_BLOCKS, Payload
from scout_core.protocol.blocks import BlockKind, BlockParser


async def test_stream_is_whole_kv_blocks_of_the_announced_length() -> None:
    payload = Payload.of_size(40 * KIB, block_bytes=10 * KIB)
    parser = BlockParser()
    received = 0
    kinds: list[BlockKind] = []
    async for block in payload.stream():
        received += len(block)
        kinds += [parsed.header.kind for parsed in parser.feed(block)]
    parser.expect_end()
    assert kinds == [BlockKind.KV] * 4
    assert received == payload.total_bytes


async def test_a_long_payload_repeats_a_ring_and_does_not_grow_in_memory() -> None:
    payload = Payload.of_size((2 * RING_BLOCKS + 3) * KIB, block_bytes=KIB)
    blocks = [block async for block in payload.stream()]
    assert len(payload.ring) == RING_BLOCKS
    assert len(blocks) == payload.blocks == 2 * RING_BLOCKS + 3
    assert blocks[0] is blocks[RING_BLOCKS] is blocks[2 * RING_BLOCKS]


def test_a_payload_has_at_least_one_block() -> None:
    assert Payload.of_size(1, block_bytes=KIB).blocks == 1


@pytest.mark.parametrize("chunk_bytes", [1_000, 4 * KIB, 256 * KIB, 4 * MIB])
def test_a_peer_sends_exactly_the_bytes_of_the_session(chunk_bytes: int) -> None:
    payload = Payload.of_size(300 * KIB, block_bytes=2 * KIB)
    sizes = [len(chunk) for chunk in payload.chunks(chunk_bytes)]
    assert sum(sizes) == payload.total_bytes
    assert max(sizes) <= chunk_bytes
    assert sizes[-1] > 0


def test_a_peers_chunks_are_cut_once() -> None:
    payload = Payload.of_size(64 * KIB, block_bytes=8 * KIB)
    assert next(payload.chunks(4 * KIB)) is next(payload.chunks(4 * KIB))


def test_backlog_limit_is_two_bandwidth_delay_products_and_128_kib() -> None:
    row = EmulatedRow(100.0, 98.0, 0.98, 500_000, 250_000)
    assert row.backlog_limit_bytes == 500_000 + 131_072

"""What the study sends: real blocks, and the same number of bytes for every contender."""

from __future__ import annotations

import pytest

from scout_core.evaluation.transport_emulated import EmulatedRow
from scout_core.evaluation.transport_payload import KIB, RING_BLOCKS, Payload
from scout_core.protocol.actions import SendChunk
from scout_core.protocol.blocks import BlockKind, BlockParser
from scout_core.protocol.payload_sender import CHUNK_MIN_BYTES, PayloadSender, SendPolicy
from scout_core.rpc.chunk_wire import encode_chunk


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


@pytest.mark.parametrize("longest_bytes", [1_000, 4 * KIB, 256 * KIB])
async def test_a_peer_sends_the_messages_that_a_session_on_a_fast_link_sends(
    longest_bytes: int,
) -> None:
    payload = Payload.of_size(300 * KIB, block_bytes=100 * KIB)
    sender = PayloadSender(SendPolicy(longest_bytes))
    sender.credit(1 << 30)
    sender.acked(0, 0.0)
    async for block in payload.stream():
        sender.append(block)
    sent: list[bytes] = []
    while isinstance(chunk := sender.next_send(0.0), SendChunk):
        sent.append(encode_chunk(chunk))
    if longest_bytes <= CHUNK_MIN_BYTES:  # the rate is not known yet
        assert [piece.message for piece in payload.chunks(longest_bytes)] == sent
    whole = b"".join(bytes(piece.data) for piece in payload.chunks(longest_bytes))
    assert whole == b"".join(payload.ring)
    assert max(len(piece.data) for piece in payload.chunks(longest_bytes)) <= longest_bytes


def test_a_peers_chunks_are_cut_once() -> None:
    payload = Payload.of_size(64 * KIB, block_bytes=8 * KIB)
    assert next(payload.chunks(4 * KIB)) is next(payload.chunks(4 * KIB))


def test_backlog_limit_is_two_bandwidth_delay_products_and_128_kib() -> None:
    row = EmulatedRow(100.0, 98.0, 0.98, 500_000, 250_000)
    assert row.backlog_limit_bytes == 500_000 + 131_072

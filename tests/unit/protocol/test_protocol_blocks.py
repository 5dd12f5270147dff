"""The block frame: what goes in comes out, however it is cut; senseless headers are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scout_core.errors import LocalProtocolError, PayloadError
from scout_core.protocol.blocks import (
    MAX_HEADER_BYTES,
    Block,
    BlockHeader,
    BlockKind,
    BlockLimits,
    BlockParser,
    encode_block,
)

HEADERS = st.tuples(
    st.sampled_from(list(BlockKind)),
    st.integers(0, 255),
    st.integers(0, 500_000),
    st.integers(1, 500_000),
    st.binary(min_size=1, max_size=300),
)


@given(fields=st.lists(HEADERS, max_size=5), cuts=st.lists(st.integers(1, 40), min_size=1))
def test_blocks_survive_any_cutting_of_the_stream(
    fields: list[tuple[BlockKind, int, int, int, bytes]], cuts: list[int]
) -> None:
    stream = b"".join(encode_block(*field) for field in fields)
    parser = BlockParser()
    blocks: list[Block] = []
    position = step = 0
    while position < len(stream):
        size = cuts[step % len(cuts)]
        blocks += parser.feed(memoryview(stream)[position : position + size])
        position, step = position + size, step + 1
    parser.expect_end()
    assert [
        (b.header.kind, b.header.codec_id, b.header.start, b.header.count, b.body) for b in blocks
    ] == fields
    assert [b.start_offset for b in blocks] == [0, *(b.end_offset for b in blocks)][: len(blocks)]
    assert parser.boundary == len(stream)


def test_header_of_the_largest_fields_has_its_stated_size() -> None:
    framed = encode_block(BlockKind.KV, 255, 2**32 - 1, 2**32 - 1, b"x")
    assert len(framed) == MAX_HEADER_BYTES - 4 + 1  # a body length of 1 takes one byte, not five
    small = encode_block(BlockKind.INDICES, 0, 0, 0, b"")
    assert small == bytes((2, 0, 0, 0, 0))


def test_empty_selection_is_a_block() -> None:
    (block,) = BlockParser().feed(encode_block(BlockKind.INDICES, 3, 0, 0, b""))
    assert block.header == BlockHeader(BlockKind.INDICES, 3, 0, 0, 0)
    assert block.body == b""
    assert block.end_offset == 5


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (bytes((0,)), "Unknown block kind 0"),
        (bytes((8,)), "Unknown block kind 8"),
        (bytes((3, 0, 0x80, 0x00)), "too long"),
        (bytes((3, 0, 0x81, 0x80, 0x00)), "too long"),
        (bytes((3, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0x1F)), "too long"),
        (bytes((3, 0, 0x80, 0x80, 0x80, 0x80, 0x80)), "more than five"),
        (bytes((3, 0, 0, 0, 1)), "empty"),
        (bytes((3, 0, 0, 1, 0)), "empty"),
        (bytes((3, 0, 90, 11, 1)), "beyond the limit"),
        (bytes((3, 0, 0, 1, 101)), "exceeds the limit"),
    ],
)
def test_senseless_header_is_refused_before_its_body(stream: bytes, words: str) -> None:
    parser = BlockParser(BlockLimits(body_bytes=100, positions=100))
    with pytest.raises(PayloadError, match=words):
        parser.feed(stream)


def test_flood_of_tiny_blocks_is_refused() -> None:
    parser = BlockParser(BlockLimits(blocks=3))
    tiny = encode_block(BlockKind.INDICES, 0, 0, 0, b"")
    assert len(parser.feed(3 * tiny)) == 3
    with pytest.raises(PayloadError, match="more than 3 blocks"):
        parser.feed(tiny)


@pytest.mark.parametrize("kept", [1, 3, 5, 8])
def test_stream_that_ends_inside_a_block_is_refused(kept: int) -> None:
    parser = BlockParser()
    parser.feed(encode_block(BlockKind.TOKENS, 0, 0, 2, b"abcd")[:kept])
    with pytest.raises(PayloadError, match="into a block"):
        parser.expect_end()


@pytest.mark.parametrize(
    ("kind", "codec_id", "start", "count", "body"),
    [
        (BlockKind.KV, 256, 0, 1, b"x"),
        (BlockKind.KV, -1, 0, 1, b"x"),
        (BlockKind.KV, 0, -1, 1, b"x"),
        (BlockKind.KV, 0, 2**32, 1, b"x"),
        (BlockKind.KV, 0, 0, 0, b"x"),
        (BlockKind.TOKENS, 0, 0, 1, b""),
    ],
)
def test_block_that_does_not_fit_the_frame_is_not_encoded(
    kind: BlockKind, codec_id: int, start: int, count: int, body: bytes
) -> None:
    with pytest.raises(LocalProtocolError):
        encode_block(kind, codec_id, start, count, body)

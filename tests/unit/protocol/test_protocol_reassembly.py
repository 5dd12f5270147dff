"""Chunks in any order and size become the same bytes; nonsense is refused and bounded."""

from __future__ import annotations

from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest, xxh3_128_digest

from scout_core.errors import ChunkError
from scout_core.protocol.checksum import chunk_checksum
from scout_core.protocol.reassembly import MAX_CHUNK_BYTES, MAX_WAITING_SEGMENTS, Reassembler


def add(reassembler: Reassembler, offset: int, data: bytes) -> bytes:
    return b"".join(reassembler.add(offset, data, chunk_checksum(data)))


def digest_of(*chunks: bytes) -> bytes:
    """As the contract says it: an entry a chunk of its end and its xxh3-64, big end first."""
    ends = accumulate(map(len, chunks))
    entries = (
        end.to_bytes(8, "big") + xxh3_64_intdigest(data).to_bytes(8, "big")
        for end, data in zip(ends, chunks, strict=True)
    )
    return xxh3_128_digest(b"".join(entries))


@st.composite
def arrivals(draw: st.DrawFn) -> tuple[bytes, list[tuple[int, int]]]:
    """A payload and ranges that cover it, in any order, with overlaps and repeats."""
    payload = draw(st.binary(min_size=1, max_size=400))
    cuts = draw(st.lists(st.integers(1, len(payload)), unique=True).map(sorted))
    bounds = sorted({0, *cuts, len(payload)})
    ranges = list(pairwise(bounds))
    for _ in range(draw(st.integers(0, 6))):
        low = draw(st.integers(0, len(payload) - 1))
        ranges.append((low, draw(st.integers(low + 1, len(payload)))))
    return payload, draw(st.permutations(ranges))


@given(case=arrivals())
def test_any_order_size_and_overlap_gives_the_same_bytes(
    case: tuple[bytes, list[tuple[int, int]]],
) -> None:
    payload, ranges = case
    reassembler = Reassembler()
    stream = b""
    for low, high in ranges:
        stream += add(reassembler, low, payload[low:high])
        assert reassembler.received == len(stream)
        assert reassembler.waiting_bytes <= len(payload) - len(stream)
    assert stream == payload
    assert reassembler.waiting_bytes == 0


@given(data=st.data())
def test_digest_is_that_of_the_chunks_in_whatever_order_they_came(data: st.DataObject) -> None:
    chunks = data.draw(st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=12))
    starts = [0, *accumulate(map(len, chunks))]
    reassembler = Reassembler()
    for index in data.draw(st.permutations(range(len(chunks)))):
        add(reassembler, starts[index], chunks[index])
    assert reassembler.digest() == digest_of(*chunks)
    if len(chunks) > 1:
        assert reassembler.digest() != digest_of(b"".join(chunks))


@given(case=arrivals(), at=st.integers(0, 10_000))
def test_a_changed_byte_that_waits_is_noticed(
    case: tuple[bytes, list[tuple[int, int]]], at: int
) -> None:
    payload, _ = case
    reassembler = Reassembler()
    waiting = payload + b"!"
    add(reassembler, 1, waiting)
    changed = bytearray(waiting)
    changed[at % len(changed)] ^= 1
    with pytest.raises(ChunkError, match="contradicts"):
        add(reassembler, 1, bytes(changed))
    assert add(reassembler, 0, b"?") == b"?" + waiting


def test_a_repeat_of_consumed_bytes_is_ignored_even_if_changed() -> None:
    reassembler = Reassembler()
    add(reassembler, 0, b"abcd")
    assert add(reassembler, 1, b"XY") == b""
    assert add(reassembler, 2, b"XYef") == b"ef"
    assert reassembler.digest() == digest_of(b"abcd", b"ef")


def test_wrong_checksum_is_refused_and_nothing_is_kept() -> None:
    reassembler = Reassembler()
    with pytest.raises(ChunkError, match="Checksum"):
        reassembler.add(0, b"abc", chunk_checksum(b"abd"))
    assert reassembler.received == 0
    assert reassembler.waiting_bytes == 0


@pytest.mark.parametrize(
    ("offset", "data"), [(0, b""), (0, bytes(MAX_CHUNK_BYTES + 1)), (-1, b"abc")]
)
def test_chunk_of_a_wrong_size_or_place_is_refused(offset: int, data: bytes) -> None:
    with pytest.raises(ChunkError, match="must have"):
        add(Reassembler(), offset, data)


def test_largest_chunk_is_taken() -> None:
    assert len(add(Reassembler(), 0, bytes(MAX_CHUNK_BYTES))) == MAX_CHUNK_BYTES


def test_gaps_are_bounded() -> None:
    reassembler = Reassembler()
    for index in range(MAX_WAITING_SEGMENTS):
        add(reassembler, 1 + 2 * index, b"x")
    with pytest.raises(ChunkError, match="gaps"):
        add(reassembler, 1 + 2 * MAX_WAITING_SEGMENTS, b"x")
    assert reassembler.waiting_bytes == MAX_WAITING_SEGMENTS


def test_dropped_waiting_bytes_can_come_again() -> None:
    reassembler = Reassembler()
    add(reassembler, 2, b"cd")
    reassembler.drop_waiting()
    assert reassembler.waiting_bytes == 0
    assert add(reassembler, 0, b"abXY") == b"abXY"

"""The edge's payload buffer reads what was appended and frees what was acked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scout_core.errors import LocalProtocolError
from scout_core.protocol.payload_buffer import PayloadBuffer


@given(
    pieces=st.lists(st.binary(max_size=20), max_size=200),
    size=st.integers(1, 37),
    lag=st.integers(0, 50),
)
def test_reads_in_chunks_give_the_appended_bytes(pieces: list[bytes], size: int, lag: int) -> None:
    buffer = PayloadBuffer()
    for piece in pieces:
        buffer.append(piece)
    payload = b"".join(pieces)
    assert buffer.end == len(payload)
    read = b""
    while len(read) < buffer.end:
        read += buffer.read(len(read), min(size, buffer.end - len(read)))
        buffer.release(len(read) - lag)
        assert buffer.held_bytes <= len(payload) - max(len(read) - lag, 0) + 20
    assert read == payload
    buffer.release(buffer.end)
    assert buffer.held_bytes == 0


def test_a_chunk_that_is_one_piece_is_not_copied() -> None:
    buffer = PayloadBuffer()
    piece = bytes(range(200))
    buffer.append(b"before")
    buffer.append(piece)
    assert buffer.read(6, 200) is piece


def test_released_and_future_bytes_cannot_be_read() -> None:
    buffer = PayloadBuffer()
    buffer.append(b"abcdef")
    buffer.release(3)
    assert buffer.read(3, 3) == b"def"
    for offset, size in ((2, 1), (3, 4), (6, 1), (4, 0)):
        with pytest.raises(LocalProtocolError):
            buffer.read(offset, size)


def test_truncation_is_possible_between_appends_only() -> None:
    buffer = PayloadBuffer()
    for piece in (b"aaa", b"bb", b"cccc"):
        buffer.append(piece)
    assert [buffer.boundary_from(offset) for offset in (0, 1, 3, 4, 5, 6, 9)] == [
        0,
        3,
        3,
        5,
        5,
        9,
        9,
    ]
    with pytest.raises(LocalProtocolError, match="not between"):
        buffer.truncate(4)
    buffer.truncate(5)
    buffer.append(b"dd")
    assert buffer.read(0, 7) == b"aaabbdd"
    buffer.release(5)
    with pytest.raises(LocalProtocolError, match="not between"):
        buffer.truncate(3)


def test_cleared_buffer_holds_nothing_and_keeps_its_length() -> None:
    buffer = PayloadBuffer()
    buffer.append(b"abc")
    buffer.clear()
    assert (buffer.held_bytes, buffer.end) == (0, 3)

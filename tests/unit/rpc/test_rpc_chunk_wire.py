"""The hand-made frame of a chunk is protobuf's, byte for byte, and bad frames are never misread."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scout.v1 import transport_pb2

from scout_core.errors import RemoteProtocolError
from scout_core.protocol.actions import SendChunk
from scout_core.protocol.events import ChunkReceived, FinishReceived
from scout_core.rpc.chunk_wire import decode_chunk, encode_chunk
from scout_core.rpc.session_wire import decode_edge

OFFSETS = st.integers(0, 2**64 - 1)
CHECKSUMS = st.integers(0, 2**64 - 1)
DATA = st.binary(min_size=0, max_size=400)


def by_protobuf(chunk: SendChunk) -> transport_pb2.SessionRequest:
    request = transport_pb2.SessionRequest()
    request.chunk.SetInParent()
    request.chunk.offset = chunk.offset
    request.chunk.data = bytes(chunk.data)
    request.chunk.checksum = chunk.checksum
    return request


@given(OFFSETS, DATA.filter(len), CHECKSUMS)
def test_frame_equals_what_protobuf_serialises(offset: int, data: bytes, checksum: int) -> None:
    chunk = SendChunk(offset, memoryview(data), checksum)
    assert encode_chunk(chunk) == by_protobuf(chunk).SerializeToString(deterministic=True)


@given(OFFSETS, DATA.filter(len), CHECKSUMS)
def test_what_is_decoded_is_what_was_sent(offset: int, data: bytes, checksum: int) -> None:
    received = decode_edge(encode_chunk(SendChunk(offset, data, checksum)))
    assert received == ChunkReceived(offset, data, checksum)


def test_chunk_data_is_not_copied_on_receipt() -> None:
    message = encode_chunk(SendChunk(7, b"payload", 1))
    received = decode_chunk(message)
    assert received is not None
    assert isinstance(received.data, memoryview)
    assert received.data.obj is message


def test_other_spellings_of_a_chunk_are_read_by_protobuf() -> None:
    """Fields in another order are valid protobuf; only the fast path does not know them."""
    chunk = transport_pb2.Chunk(offset=9, checksum=3).SerializeToString() + b"\x12\x03abc"
    message = b"\x12" + bytes((len(chunk),)) + chunk
    assert decode_chunk(message) is None
    assert decode_edge(message) == ChunkReceived(9, b"abc", 3)


def test_other_messages_are_not_chunks() -> None:
    finish = transport_pb2.SessionRequest(
        finish=transport_pb2.Finish(payload_bytes=5, digest=bytes(16))
    ).SerializeToString()
    assert decode_chunk(finish) is None
    assert decode_edge(finish) == FinishReceived(5, bytes(16))


@given(st.binary(max_size=64))
def test_any_bytes_mean_the_same_to_the_fast_path_and_to_protobuf(data: bytes) -> None:
    for message in (data, b"\x12" + data):
        fast = decode_chunk(message)
        if fast is None:
            continue
        chunk = transport_pb2.SessionRequest.FromString(message).chunk
        assert (fast.offset, fast.data, fast.checksum) == (
            chunk.offset,
            chunk.data,
            chunk.checksum,
        )


@given(DATA.filter(len), st.data())
def test_a_damaged_frame_agrees_with_protobuf_or_is_refused(
    data: bytes, draw: st.DataObject
) -> None:
    message = bytearray(encode_chunk(SendChunk(300, data, 2**63)))
    position = draw.draw(st.integers(0, len(message) - 1))
    message[position] ^= draw.draw(st.integers(1, 255))
    damaged = bytes(message[: draw.draw(st.integers(1, len(message)))])
    fast = decode_chunk(damaged)
    if fast is not None:
        chunk = transport_pb2.SessionRequest.FromString(damaged).chunk
        assert (fast.offset, fast.data, fast.checksum) == (
            chunk.offset,
            chunk.data,
            chunk.checksum,
        )


def test_a_truncated_frame_is_a_protocol_error() -> None:
    with pytest.raises(RemoteProtocolError):
        decode_edge(encode_chunk(SendChunk(0, b"abcdef", 1))[:-9])

"""The chunk message, framed by hand: the only message whose bytes are many.

Protobuf copies a bytes field into the message, out of it into the serialised form, and again at
each access (STYLE, trap 16): five copies of 256 KiB per chunk between both ends. Here the sender
joins once and the receiver looks at the message in place. The bytes are those that protobuf makes
of the same ``SessionRequest``; any other spelling of a chunk is left to protobuf.
"""

from __future__ import annotations

import struct
from typing import Final

from scout_core.protocol.actions import SendChunk
from scout_core.protocol.events import ChunkReceived

CHUNK_TAG: Final = 0x12
"""Field 2 of SessionRequest, length-delimited."""
OFFSET_TAG: Final = 0x08
"""Field 1 of Chunk, a varint; left out when 0."""
DATA_TAG: Final = 0x12
"""Field 2 of Chunk, length-delimited."""
CHECKSUM_TAG: Final = 0x19
"""Field 3 of Chunk, fixed64; left out when 0."""

CHECKSUM_FIELD: Final = struct.Struct("<BQ")
VARINT_BYTES: Final = 10
"""A 64-bit varint has at most this many bytes."""


def encode_chunk(chunk: SendChunk) -> bytes:
    """A SessionRequest with this chunk, serialised."""
    data = chunk.data
    head = bytearray()
    if chunk.offset:
        head.append(OFFSET_TAG)
        _append_varint(head, chunk.offset)
    head.append(DATA_TAG)
    _append_varint(head, len(data))
    tail = CHECKSUM_FIELD.pack(CHECKSUM_TAG, chunk.checksum) if chunk.checksum else b""
    frame = bytearray((CHUNK_TAG,))
    _append_varint(frame, len(head) + len(data) + len(tail))
    return b"".join((frame, head, data, tail))


def decode_chunk(message: bytes) -> ChunkReceived | None:
    """The chunk in a serialised SessionRequest, its data a view of ``message``.

    None: not a chunk, or not in the spelling of ``encode_chunk``; protobuf may know better.
    """
    if not message or message[0] != CHUNK_TAG:
        return None
    try:
        length, position = _varint(message, 1)
        if position + length != len(message):
            return None
        offset = 0
        if message[position] == OFFSET_TAG:
            offset, position = _varint(message, position + 1)
        if message[position] != DATA_TAG:
            return None
        length, position = _varint(message, position + 1)
    except (IndexError, OverflowError):
        return None
    end = position + length
    if end + CHECKSUM_FIELD.size != len(message):
        return None
    tag, checksum = CHECKSUM_FIELD.unpack_from(message, end)
    if tag != CHECKSUM_TAG:
        return None
    return ChunkReceived(offset, memoryview(message)[position:end], checksum)


def _append_varint(target: bytearray, value: int) -> None:
    while value >= 0x80:
        target.append(0x80 | value & 0x7F)
        value >>= 7
    target.append(value)


def _varint(message: bytes, position: int) -> tuple[int, int]:
    """Value and the position behind it.

    Raises:
        IndexError: the message ends inside it.
        OverflowError: more than 64 bits.
    """
    value = 0
    for index in range(VARINT_BYTES):
        byte = message[position + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if value >> 64:
                break
            return value, position + index + 1
    raise OverflowError

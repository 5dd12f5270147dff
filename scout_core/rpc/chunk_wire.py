"""The chunk message, framed by hand: the only message whose bytes are many.

Protobuf copies a bytes field into the message, out of it into the serialised form, and again at
each access (STYLE, trap 16): five copies of 256 KiB per chunk between both ends. Here the sender
joins once and the receiver looks at the message in place. The bytes are those that protobuf makes
of the same ``SessionRequest``; any other spelling of a chunk is left to protobuf.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final

from scout_core.protocol.actions import SendChunk
from scout_core.protocol.events import ChunkReceived

CHUNK_TAG: Final = b"\x12"
"""Field 2 of SessionRequest, length-delimited."""
OFFSET_TAG: Final = b"\x08"
"""Field 1 of Chunk, a varint; left out when 0."""
DATA_TAG: Final = b"\x12"
"""Field 2 of Chunk, length-delimited."""
CHECKSUM_TAG: Final = 0x19
"""Field 3 of Chunk, fixed64; left out when 0."""

CHECKSUM_FIELD: Final = struct.Struct("<BQ")
HEADS_KEPT: Final = 64
"""The chunks of a stream are of few lengths."""
VARINT_BYTES: Final = 10
"""A 64-bit varint has at most this many bytes."""


def encode_chunk(chunk: SendChunk) -> bytes:
    """A SessionRequest with this chunk, serialised."""
    data = chunk.data
    offset = OFFSET_TAG + _varint_of(chunk.offset) if chunk.offset else b""
    head = offset + _head(DATA_TAG, len(data))
    tail = CHECKSUM_FIELD.pack(CHECKSUM_TAG, chunk.checksum) if chunk.checksum else b""
    return b"".join((_head(CHUNK_TAG, len(head) + len(data) + len(tail)), head, data, tail))


def decode_chunk(message: bytes) -> ChunkReceived | None:
    """The chunk in a serialised SessionRequest, its data a view of ``message``.

    None: not a chunk, or not in the spelling of ``encode_chunk``; protobuf may know better. Both
    lengths follow from that of the message, so they are compared and not read.
    """
    head = _head_of_whole(CHUNK_TAG, len(message))
    if head is None or not message.startswith(head):
        return None
    position, offset = len(head), 0
    if message.startswith(OFFSET_TAG, position):
        try:
            offset, position = _varint(message, position + 1)
        except (IndexError, OverflowError):
            return None
    end = len(message) - CHECKSUM_FIELD.size
    head = _head_of_whole(DATA_TAG, end - position)
    if head is None or not message.startswith(head, position):
        return None
    tag, checksum = CHECKSUM_FIELD.unpack_from(message, end)
    if tag != CHECKSUM_TAG:
        return None
    return ChunkReceived(offset, memoryview(message)[position + len(head) : end], checksum)


@lru_cache(HEADS_KEPT)
def _head(tag: bytes, content_bytes: int) -> bytes:
    """What precedes a length-delimited field's content."""
    return tag + _varint_of(content_bytes)


@lru_cache(HEADS_KEPT)
def _head_of_whole(tag: bytes, whole_bytes: int) -> bytes | None:
    """The head of such a field that has ``whole_bytes`` with it; None: no field is so long."""
    for varint_bytes in range(1, VARINT_BYTES + 1):
        content_bytes = whole_bytes - len(tag) - varint_bytes
        if content_bytes < 0:
            break
        head = tag + _varint_of(content_bytes)
        if len(head) == len(tag) + varint_bytes:
            return head
    return None


def _varint_of(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(0x80 | value & 0x7F)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _varint(message: bytes, position: int) -> tuple[int, int]:
    """Value and the position behind it.

    Raises:
        IndexError: the message ends inside it.
        OverflowError: more than 64 bits.
    """
    value = 0
    for shift in range(0, 7 * VARINT_BYTES, 7):
        byte = message[position]
        position += 1
        if byte < 0x80:
            value |= byte << shift
            if value >> 64:
                break
            return value, position
        value |= (byte & 0x7F) << shift
    raise OverflowError

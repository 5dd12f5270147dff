"""The block frame inside the payload stream, and its incremental parser.

    kind u8 | codec u8 | start varint | count varint | body length varint | body

Varints are LEB128, little end first, at most five bytes and 32 bits, in their shortest form. This
module owns the frame alone; what a body means is the codecs' business. The parser buffers one
block at most and checks a header against its limits *before* it keeps any of the body. A long body
stays in the pieces it came in: whoever decodes it joins them, once and where it costs the stream
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from scout_core.errors import LocalProtocolError, PayloadError

_VARINT_BYTES = 5
_VARINT_LIMIT = 1 << 32
_FIXED_HEADER_BYTES = 2
_HEADER_FIELDS = 3
SMALL_PIECE_BYTES: Final = 4096
"""Shorter pieces of a body are copied together: a view costs some 200 bytes and keeps the whole
message alive that it looks into."""
REFINABLE_BYTES: Final = 256 << 20
"""KV of a payload's first so many bytes, counted as bf16 and in whole blocks, can be refined: the
receiver keeps what it was sent of them, and the sender counts likewise."""
MAX_HEADER_BYTES = _FIXED_HEADER_BYTES + _HEADER_FIELDS * _VARINT_BYTES


Piece = bytes | bytearray | memoryview


class BlockKind(IntEnum):
    """What a block carries; the value is the byte on the wire."""

    TOKENS = 1
    """Packed token ids of positions [start, start + count)."""
    INDICES = 2
    """A selection of ``count`` positions; the only kind whose count and body may be empty."""
    KV = 3
    """KV of positions [start, start + count), all layers."""
    KV_SELECTED = 4
    """KV of ``count`` kept positions from ``start`` on; an INDICES block came before."""
    TEXT = 5
    """The context's text, ``count`` characters of UTF-8."""
    SPANS = 6
    """A selection of ``count`` ranges of characters, coded by ``scout_core.codec.spans``."""
    KV_REFINEMENT = 7
    """More of the KV block of the same positions: with it, that is one of this block's codec."""


_KINDS = {int(kind): kind for kind in BlockKind}


@dataclass(frozen=True, slots=True)
class BlockLimits:
    """The largest block a receiver takes."""

    body_bytes: int = 64 << 20
    positions: int = 1 << 20
    """Limit of ``start + count``."""
    blocks: int = 1 << 16
    """Blocks in one payload; a flood of tiny blocks costs more memory than its bytes."""


@dataclass(frozen=True, slots=True)
class BlockHeader:
    """The frame's fields; ``codec_id`` is 0–255 and is the codecs' namespace."""

    kind: BlockKind
    codec_id: int
    start: int
    count: int
    body_bytes: int


@dataclass(frozen=True, slots=True)
class Block:
    """One complete block. ``start_offset`` and ``end_offset`` are in the payload stream.

    ``pieces`` are the body in order; they may be views of the messages that brought it.
    """

    header: BlockHeader
    pieces: tuple[Piece, ...]
    start_offset: int
    end_offset: int

    @property
    def body(self) -> bytes:
        """The body in one: a copy, made at each access."""
        return b"".join(self.pieces)


def encode_block(kind: BlockKind, codec_id: int, start: int, count: int, body: bytes) -> bytes:
    """Frames one block.

    Raises:
        LocalProtocolError: a field does not fit the frame, or an empty block of a kind that
            must not be empty.
    """
    if not 0 <= codec_id <= 0xFF:
        raise LocalProtocolError(f"codec_id must be in 0..255, got {codec_id}.")
    for name, value in (("start", start), ("count", count), ("body length", len(body))):
        if not 0 <= value < _VARINT_LIMIT:
            raise LocalProtocolError(f"Block {name} must be in 0..2^32-1, got {value}.")
    if kind is not BlockKind.INDICES and (count == 0 or not body):
        raise LocalProtocolError(f"A {kind.name} block must not be empty; leave it out.")
    header = bytearray((kind, codec_id))
    for value in (start, count, len(body)):
        _append_varint(header, value)
    return b"".join((header, body))


def _append_varint(target: bytearray, value: int) -> None:
    while value >= 0x80:
        target.append(0x80 | value & 0x7F)
        value >>= 7
    target.append(value)


class BlockParser:
    """Cuts a contiguous payload stream, fed in any pieces, into blocks.

    Attributes:
        boundary: stream offset of the end of the last complete block; to be read, not set.
    """

    def __init__(self, limits: BlockLimits | None = None) -> None:
        self._limits = limits or BlockLimits()
        self._header_bytes = bytearray()
        self._header: BlockHeader | None = None
        self._body: list[Piece] = []
        self._body_missing = 0
        self._offset = 0
        self.boundary = 0
        self._blocks = 0

    def feed(self, data: bytes | memoryview) -> tuple[Block, ...]:
        """Takes the next piece of the stream; returns the blocks it completes.

        Raises:
            PayloadError: an unknown kind, an overlong varint, or a header beyond the limits. The
                parser must not be used after that.
        """
        view = memoryview(data)
        if SMALL_PIECE_BYTES <= len(view) < self._body_missing:  # the middle of a body
            self._body.append(view)
            self._body_missing -= len(view)
            self._offset += len(view)
            return ()
        blocks: list[Block] = []
        base = self._offset
        position = 0
        while position < len(view):
            if self._header is None:
                position = self._take_header(view, position)
            else:
                position = self._take_body(view, position)
            self._offset = base + position
            if self._header is not None and self._body_missing == 0:
                blocks.append(self._complete(self._header))
        return tuple(blocks)

    def expect_end(self) -> None:
        """Raises:
        PayloadError: the stream ended inside a block.
        """
        if self.boundary != self._offset:
            raise PayloadError(
                f"The payload ends {self._offset - self.boundary} bytes into a block; "
                "send whole blocks.",
                boundary=self.boundary,
                received=self._offset,
            )

    def _take_header(self, view: memoryview, position: int) -> int:
        """Consumes bytes until the header is complete or the view ends."""
        held = len(self._header_bytes)
        self._header_bytes += view[position : position + MAX_HEADER_BYTES - held]
        parsed = _parse_header(self._header_bytes)
        if parsed is None:
            return position + len(self._header_bytes) - held
        header, header_bytes = parsed
        self._check(header)
        self._header = header
        self._body_missing = header.body_bytes
        self._header_bytes.clear()
        return position + header_bytes - held

    def _take_body(self, view: memoryview, position: int) -> int:
        piece = view[position : position + self._body_missing]
        last = self._body[-1] if self._body else None
        if len(piece) >= SMALL_PIECE_BYTES:
            self._body.append(piece)
        elif isinstance(last, bytearray):
            last += piece
        else:
            self._body.append(bytearray(piece))
        self._body_missing -= len(piece)
        return position + len(piece)

    def _complete(self, header: BlockHeader) -> Block:
        block = Block(header, tuple(self._body), self.boundary, self._offset)
        self.boundary = self._offset
        self._blocks += 1
        self._header = None
        self._body = []
        return block

    def _check(self, header: BlockHeader) -> None:
        if self._blocks >= self._limits.blocks:
            raise PayloadError(
                f"The payload has more than {self._limits.blocks} blocks; send larger blocks."
            )
        if header.body_bytes > self._limits.body_bytes:
            raise PayloadError(
                f"A {header.kind.name} block of {header.body_bytes} bytes exceeds the limit of "
                f"{self._limits.body_bytes}; send smaller blocks."
            )
        if header.start + header.count > self._limits.positions:
            raise PayloadError(
                f"A {header.kind.name} block ends at position {header.start + header.count}, "
                f"beyond the limit of {self._limits.positions}."
            )
        if header.kind is not BlockKind.INDICES and not (header.count and header.body_bytes):
            raise PayloadError(f"A {header.kind.name} block is empty; leave it out.")


def _parse_header(data: bytearray) -> tuple[BlockHeader, int] | None:
    """The header that ``data`` begins with and its length.

    None while ``data`` is a proper beginning of a header.
    """
    kind = _KINDS.get(data[0])
    if kind is None:
        raise PayloadError(f"Unknown block kind {data[0]}; the two ends may differ in version.")
    fields: list[int] = []
    position = _FIXED_HEADER_BYTES
    while len(fields) < _HEADER_FIELDS:
        value = 0
        for index in range(_VARINT_BYTES):
            if position >= len(data):
                return None
            byte = data[position]
            position += 1
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                if value >= _VARINT_LIMIT or (byte == 0 and index > 0):
                    raise PayloadError("A block header holds a varint that is too long.")
                fields.append(value)
                break
        else:
            raise PayloadError("A block header holds a varint of more than five bytes.")
    start, count, body_bytes = fields
    return BlockHeader(kind, data[1], start, count, body_bytes), position

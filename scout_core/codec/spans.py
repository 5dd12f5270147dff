"""Ranges of characters as bytes: the selection of an edge without the cloud's tokenizer.

Owns the byte format. Per range, in order, two varints: the characters left out before it (less one
from the second range on, since ranges do not touch) and its length less one. Varints are LEB128 in
their shortest form. The number of characters and of ranges travels outside (session open, block
header). Every set of ranges has exactly one encoding, and every payload at most one meaning. A
range of up to 128 characters after a gap of up to 128 takes two bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from scout_core.errors import PositionsError

MAX_CHARACTERS: Final = 1 << 20
"""Longest text whose ranges can be coded; bounds the work a stranger's bytes can cause."""
_VARINT_BYTES: Final = 3
"""Enough for any number below ``MAX_CHARACTERS``."""

Span = tuple[int, int]


def most_span_bytes(characters: int, spans: int) -> int:
    """No encoding of so many ranges in a text of so many characters is longer."""
    widest = max(1, -(-max(characters - 1, 0).bit_length() // 7))
    return 2 * spans * widest


def encode_spans(spans: Sequence[Span], characters: int) -> bytes:
    """Codes ascending half-open ranges within ``[0, characters)`` that do not touch.

    Raises:
        PositionsError: a range is empty, out of order, touches the one before or leaves the text;
            or the text is too long.
    """
    _check_length(characters)
    payload = bytearray()
    done = 0
    for index, (begin, end) in enumerate(spans):
        first = done + 1 if index else 0
        if not first <= begin < end <= characters:
            raise PositionsError(
                f"Range {begin}..{end} is empty, touches the one before it or leaves the text of "
                f"{characters} characters.",
            )
        _append_varint(payload, begin - first)
        _append_varint(payload, end - begin - 1)
        done = end
    return bytes(payload)


def decode_spans(payload: bytes, characters: int, count: int) -> tuple[Span, ...]:
    """Inverse of ``encode_spans``; returns ``count`` ranges.

    Raises:
        PositionsError: the payload is not the encoding of so many ranges within such a text.
    """
    _check_length(characters)
    if not 0 <= count <= (characters + 1) // 2:
        raise PositionsError(f"{count} ranges that do not touch don't fit {characters} characters.")
    if len(payload) > most_span_bytes(characters, count):
        raise PositionsError(
            f"{count} ranges of {characters} characters take at most "
            f"{most_span_bytes(characters, count)} bytes, got {len(payload)}.",
        )
    spans: list[Span] = []
    offset = done = 0
    for index in range(count):
        gap, offset = _varint_at(payload, offset)
        length, offset = _varint_at(payload, offset)
        begin = done + gap + (1 if index else 0)
        done = begin + length + 1
        if done > characters:
            raise PositionsError(f"A range ends at {done}, the text has {characters} characters.")
        spans.append((begin, done))
    if offset != len(payload):
        raise PositionsError(f"{len(payload) - offset} bytes follow the last of {count} ranges.")
    return tuple(spans)


def _check_length(characters: int) -> None:
    if not 1 <= characters <= MAX_CHARACTERS:
        raise PositionsError(
            f"Ranges are coded for texts of 1 to {MAX_CHARACTERS} characters, not {characters}."
        )


def _append_varint(target: bytearray, value: int) -> None:
    while value >= 0x80:
        target.append(0x80 | value & 0x7F)
        value >>= 7
    target.append(value)


def _varint_at(payload: bytes, offset: int) -> tuple[int, int]:
    """The number at ``offset`` and the offset behind it."""
    value = 0
    for index in range(_VARINT_BYTES):
        if offset + index >= len(payload):
            raise PositionsError(
                "The payload ends inside a range; send what encode_spans returned."
            )
        byte = payload[offset + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if byte == 0 and index:
                raise PositionsError("A range holds a number that is not in its shortest form.")
            return value, offset + index + 1
    raise PositionsError(f"A range holds a number of more than {_VARINT_BYTES} bytes.")

"""The residual from ``int8_groups`` to bf16, compiled: what ``residual_reference`` defines.

Owns the loops and nothing else. A *line* is one kind (keys, values) of one layer and head:
``[positions, head_dim]``. Where a class begins is guessed from the real number halfway between two
codes and checked with the encoder's own arithmetic; near zero, where floats lie closer together
than that arithmetic can tell, it is searched from there.
"""

# numba types are unknown to the type checker inside compiled functions
# pyright: reportUnknownParameterType=false, reportMissingParameterType=false
# pyright: reportUntypedFunctionDecorator=false

from __future__ import annotations

from typing import Final

import numpy as np

from scout_core.codec.bf16 import widened
from scout_core.codec.compiled import compiled, inlined
from scout_core.codec.group_reference import LARGEST_CODE
from scout_core.codec.residual_reference import GREATEST_PLACE, LEAST_PLACE, STEPLESS_SPAN

_INTEGRAL: Final = np.float32(1.5 * 2**23)
"""Added to a small number and taken away again, it rounds it to an integer, ties to even."""
_UNKNOWN: Final = np.int32(1 << 20)
"""No place: the first guess was wrong."""
_FULL: Final = np.uint64(0xFFFFFFFFFFFFFFFF)
"""The product before a line's first word: any count but 1 begins one."""


@inlined
def _number(place):
    """The number at a place."""
    word = np.int32(place ^ np.int32(np.int32(place >> np.int32(31)) & np.int32(0x7FFF)))
    return np.uint32(np.uint32(word) << np.uint32(16)).view(np.float32)


@inlined
def _floor_place(number):
    """The place of a number cut to 16 bits."""
    raw = np.float32(number).view(np.int32)
    ordered = np.int32(raw ^ np.int32(np.int32(raw >> np.int32(31)) & np.int32(0x7FFFFFFF)))
    return np.int32(ordered >> np.int32(16))


@inlined
def _reaches(place, code, offset, scale):
    """Whether the number at a place is given this code or a higher one."""
    scaled = np.float32(np.float32(_number(place) - offset) * scale)
    scaled = max(min(scaled, np.float32(LARGEST_CODE)), np.float32(-1024))
    return np.float32(np.float32(scaled + _INTEGRAL) - _INTEGRAL) >= code


@inlined
def _halfway(code, offset, step):
    """The place of the number halfway to the code below; ``step`` is a sixteenth of one."""
    return _floor_place(np.float32(offset + np.float32(np.float32(code - np.float32(0.5)) * step)))


@inlined
def _guessed(code, offset, step, scale):
    """The first place with this code or a higher one, or ``_UNKNOWN``."""
    place = _halfway(code, offset, step)
    start = np.int32(place + np.int32(not _reaches(place, code, offset, scale)))
    right = _reaches(np.int32(place + np.int32(1)), code, offset, scale)
    right &= not _reaches(np.int32(place - np.int32(1)), code, offset, scale)
    return start if right else _UNKNOWN


@compiled
def _searched(code, offset, step, scale):
    """The same, whatever the guess: by doubled and then by halved steps from it."""
    near = _halfway(code, offset, step)
    reached = _reaches(near, code, offset, scale)
    stride = np.int32(1)
    far = near
    while True:  # the interval (low, high] that the first place lies in
        far = np.int32(far - stride) if reached else np.int32(far + stride)
        far = max(min(far, np.int32(GREATEST_PLACE + 1)), np.int32(LEAST_PLACE - 1))
        if far > GREATEST_PLACE or far < LEAST_PLACE:
            break
        if _reaches(far, code, offset, scale) != reached:
            break
        stride = np.int32(stride + stride)
    low, high = (far, near) if reached else (near, far)
    while high - low > 1:
        middle = np.int32((low + high) >> 1)
        if _reaches(middle, code, offset, scale):
            high = middle
        else:
            low = middle
    return high


@compiled
def _search_row(row, classes):
    """Finds what ``_row_classes`` guessed wrong."""
    for channel in range(row.shape[1]):
        code, low, by, of = row[0, channel], row[1, channel], row[2, channel], row[3, channel]
        if classes[0, channel] == _UNKNOWN:
            classes[0, channel] = _searched(code, low, by, of)
        if classes[1, channel] == _UNKNOWN:
            classes[1, channel] = _searched(np.float32(code + np.float32(1)), low, by, of)


@compiled
def _row_classes(row, classes):
    """First place and count of each class of one row; whether every class has numbers.

    Args:
        row: float32 ``[4, channels]``: codes, offsets, sixteenths of steps, codes a unit; the last
            two are 0 where there is no step. One array, and one for the result: with six, the
            compiler gives up telling which may overlap, and does not use vectors.
        classes: gets the places and the counts, int32 ``[2, channels]``.
    """
    unknown = np.int32(0)
    for channel in range(row.shape[1]):
        code, low, by, of = row[0, channel], row[1, channel], row[2, channel], row[3, channel]
        start = _guessed(code, low, by, of)
        stop = _guessed(np.float32(code + np.float32(1)), low, by, of)
        least = _floor_place(low)
        start = least if code == np.float32(0) else start
        stop = np.int32(GREATEST_PLACE + 1) if code == np.float32(LARGEST_CODE) else stop
        flat = by == np.float32(0)
        end = np.int32(_floor_place(np.float32(low + STEPLESS_SPAN)) + np.int32(1))
        stop = (end if code == np.float32(0) else least) if flat else stop
        start = least if flat else start
        unknown |= np.int32(max(start, stop) == _UNKNOWN)
        classes[0, channel], classes[1, channel] = start, stop
    if unknown != 0:
        _search_row(row, classes)
    refused = np.int32(0)
    for channel in range(row.shape[1]):
        first = max(classes[0, channel], _floor_place(row[1, channel]))
        count = np.int32(classes[1, channel] - first)
        classes[0, channel], classes[1, channel] = first, count
        refused |= np.int32(row[0, channel] < np.float32(0)) | np.int32(count < 1)
    return refused == 0


@inlined
def _overflows(product, count):
    """Whether the product of a 64-bit and a 16-bit number needs more than 64 bits."""
    if product < np.uint64(1 << 48):  # mostly
        return False
    low = np.uint64((product & np.uint64(0xFFFFFFFF)) * count) >> np.uint64(32)
    return np.uint64((product >> np.uint64(32)) * count + low) >> np.uint64(32) != np.uint64(0)


@compiled
def _unpack_row(coarse, fine, codes):
    """The codes of one row as float32, from its nibbles."""
    half = coarse.size
    for channel in range(half):
        pair, fines = np.int32(coarse[channel]), np.int32(fine[channel])
        low = np.int32((fines & np.int32(15)) ^ np.int32(8)) - np.int32(8)
        high = np.int32((fines >> np.int32(4)) ^ np.int32(8)) - np.int32(8)
        codes[channel] = np.float32(np.int32((pair & np.int32(15)) << np.int32(4)) + low)
        codes[half + channel] = np.float32(np.int32(pair & np.int32(0xF0)) + high)


@compiled
def _scale_row(offsets, steps, width, row):
    """A row's offsets, sixteenths of steps and codes a unit from groups of ``width`` channels."""
    for group in range(offsets.size):
        low, wide = widened(offsets[group]), widened(steps[group])
        divisor = np.float32(1) if wide == np.float32(0) else wide
        of = np.float32(0) if wide == np.float32(0) else np.float32(16) / divisor
        by = np.float32(wide * np.float32(0.0625))
        for channel in range(group * width, (group + 1) * width):
            row[1, channel], row[2, channel], row[3, channel] = low, by, of


@compiled
def line_classes(offsets, steps, coarse, fine, first, counts):
    """Classes of one line ``[positions, head_dim]``; how many words it takes, -1 if it is invalid.

    Args:
        offsets, steps: ``[groups, head_dim]`` for keys, ``[positions, channel groups]`` for values.
        first: gets the first place of each class, int16.
        counts: gets the counts, uint16.
    """
    positions, head_dim = first.shape
    groups, width = offsets.shape[0], head_dim // offsets.shape[1]
    parts, classes = np.empty((4, head_dim), np.float32), np.empty((2, head_dim), np.int32)
    words, product = np.int64(0), _FULL
    for group in range(groups):
        _scale_row(offsets[group], steps[group], width, parts)
        for row in range(group * positions // groups, (group + 1) * positions // groups):
            _unpack_row(coarse[row], fine[row], parts[0])
            if not _row_classes(parts, classes):
                return -1
            for channel in range(head_dim):
                first[row, channel] = np.int16(classes[0, channel])
                counts[row, channel] = np.uint16(classes[1, channel])
                count = np.uint64(classes[1, channel])
                full = _overflows(product, count)
                words += np.int64(full)
                product = count if full else np.uint64(product * count)
    return words


@compiled
def write_line(bits, first, counts, words):
    """Fills the words of one line from its exact bf16 ``bits`` ``[elements]``; False if an element
    is not in its class."""
    cursor, product, word = -1, _FULL, np.uint64(0)
    for index in range(bits.size):
        count = np.uint64(counts[index])
        signed = np.int16(bits[index])
        place = np.int16(signed ^ np.int16((signed >> np.int16(15)) & np.int16(0x7FFF)))
        rank = np.uint64(np.int64(place) - np.int64(first[index]))
        if rank >= count:
            return False
        if _overflows(product, count):
            if cursor >= 0:
                words[cursor] = word
            cursor, product, word = cursor + 1, np.uint64(1), np.uint64(0)
        word += np.uint64(rank * product)
        product = np.uint64(product * count)
    if cursor >= 0:
        words[cursor] = word
    return True


@compiled
def read_line(words, counts, bits):
    """Turns one line's first places into its elements: ``bits`` int16 ``[elements]``, in place;
    False if the words are not its."""
    cursor, product, word = -1, _FULL, np.uint64(0)
    for index in range(bits.size):
        count = np.uint64(counts[index])
        if _overflows(product, count):
            if word != 0:
                return False
            cursor, product, word = cursor + 1, np.uint64(1), words[cursor + 1]
        product = np.uint64(product * count)
        quotient = np.uint64(word // count)
        place = np.int16(np.int64(bits[index]) + np.int64(word - quotient * count))
        bits[index] = np.int16(place ^ np.int16((place >> np.int16(15)) & np.int16(0x7FFF)))
        word = quotient
    return word == 0

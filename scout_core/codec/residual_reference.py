"""The residual from ``int8_groups`` to bf16 in plain numpy and integers: the definition.

Owns the arithmetic of *classes* and *words*; knows nothing of sections. A class is the set of bf16
numbers that the encoder of ``group_reference`` gives one 8-bit code, under one offset and step. In
the total order of floats it is an interval [first, first + count), so an element of the exact cache
is its code and its *rank* in the class. A decoder knows every class before it reads a residual, so
nothing needs to be modelled or announced: ranks are digits of mixed radix, the radices being the
counts. Word by word, the first element's digit lowest; a word takes elements while the product of
their counts stays below 2^64.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from scout_core.codec.group_layout import Words
from scout_core.codec.group_reference import LARGEST_CODE, are_valid_groups
from scout_core.errors import CodecError

Places = NDArray[np.int32]
Codes = NDArray[np.int16]

LEAST_PLACE: Final = -0x7F80
GREATEST_PLACE: Final = 0x7F7F
"""Places of the largest finite numbers of either sign."""
SMALLEST_STEP_BITS: Final = np.uint16((127 - 100) << 7)
"""2^-100 as bf16: a group of a smaller step has none."""
STEPLESS_SPAN: Final = np.float32(2.0**-96)
"""No less than the range of a group without a step: 15 · 2^-100."""
WORD_BITS: Final = 64
_FULL: Final = (1 << WORD_BITS) - 1


def places_of(bits: Words) -> Places:
    """Each element's place in the total order of floats: -1 for -0, 0 for 0."""
    words = bits.view(np.int16).astype(np.int32)
    return words ^ ((words >> 15) & 0x7FFF)


def are_written_groups(offsets: Words, steps: Words) -> bool:
    """Whether an encoder could have written these: valid, and no step below the smallest."""
    tiny = (steps > 0) & (steps < SMALLEST_STEP_BITS)
    return are_valid_groups(offsets, steps) and not bool(tiny.any())


def classes(codes: Codes, offsets: Words, steps: Words) -> tuple[Places, Places]:
    """First place and count of each element's class; the arrays broadcast.

    A count of 0: no number has this code, so no encoder wrote it.
    """
    shape = np.broadcast_shapes(codes.shape, offsets.shape, steps.shape)
    codes = np.broadcast_to(codes, shape)
    offsets, steps = np.broadcast_to(offsets, shape), np.broadcast_to(steps, shape)
    least = places_of(np.ascontiguousarray(offsets))
    first = np.where(codes == 0, least, np.maximum(least, _threshold(codes, offsets, steps)))
    last = _threshold(codes + np.int16(1), offsets, steps) - 1
    last = np.where(codes >= LARGEST_CODE, GREATEST_PLACE, last)
    span_end = _floor_places(_widened(offsets) + STEPLESS_SPAN)
    stepless = np.where(codes == 0, span_end, least - 1)
    has_step = _widened(steps) > 0
    first, last = np.where(has_step, first, least), np.where(has_step, last, stepless)
    return first, np.maximum(last - first + 1, 0)


def written(ranks: Places, counts: Places) -> list[int]:
    """The words of one line of elements."""
    words: list[int] = []
    product = _FULL
    for rank, count in zip(ranks.tolist(), counts.tolist(), strict=True):
        if product * count > _FULL:
            words.append(0)
            product = 1
        if words:
            words[-1] += rank * product
        product *= count
    return words


def read(words: list[int], counts: Places) -> Places:
    """Inverse of ``written``.

    Raises:
        CodecError: not as many words, or one beyond the product of its counts.
    """
    left, ranks = list(words), np.empty(counts.shape, dtype=np.int32)
    product, word = _FULL, 0
    for index, count in enumerate(counts.tolist()):
        if product * count > _FULL:
            if word or not left:
                raise CodecError("A residual's word does not fit its classes.")
            product, word = 1, left.pop(0)
        product *= count
        word, ranks[index] = divmod(word, count)
    if word or left:
        raise CodecError("A residual does not end with its classes.")
    return ranks


def _threshold(codes: Codes, offsets: Words, steps: Words) -> Places:
    """The least finite place whose number has at least this code; one beyond all if none has."""
    low = np.full(codes.shape, LEAST_PLACE, dtype=np.int32)
    high = np.full(codes.shape, GREATEST_PLACE + 1, dtype=np.int32)
    for _ in range(17):  # 65,281 candidates
        middle = (low + high) >> 1
        reached = _reaches(np.minimum(middle, GREATEST_PLACE), codes, offsets, steps)
        is_open = low < high
        high = np.where(is_open & reached, middle, high)
        low = np.where(is_open & ~reached, middle + 1, low)
    return low


def _reaches(places: Places, codes: Codes, offsets: Words, steps: Words) -> NDArray[np.bool_]:
    """Whether the number at a place is given this code or a higher one. Monotone in the place."""
    words = (places ^ ((places >> 15) & 0x7FFF)) & 0xFFFF
    numbers = _widened(words.astype(np.uint16))
    wide_steps = _widened(steps)
    scale = np.float32(16) / np.where(wide_steps > 0, wide_steps, np.float32(16))
    with np.errstate(over="ignore"):
        scaled = np.rint((numbers - _widened(offsets)) * scale)
    return np.minimum(scaled, np.float32(LARGEST_CODE)) >= codes


def _floor_places(numbers: NDArray[np.float32]) -> Places:
    """The place of each number cut to 16 bits."""
    raw = numbers.view(np.int32)
    return (raw ^ ((raw >> 31) & np.int32(0x7FFFFFFF))) >> 16


def _widened(bits: Words) -> NDArray[np.float32]:
    return (bits.astype(np.uint32) << 16).view(np.float32)

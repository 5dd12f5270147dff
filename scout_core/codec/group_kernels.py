"""Group quantisation compiled: the same sections, bit for bit, as ``group_reference`` fills.

Owns the loops and nothing else. Each kernel handles a range of slabs, holds no lock while it runs
and touches no shared state, so that ``parallel`` may run several at once. Elements are compared as
integers (``_ordered``), where NaN and infinity sort beyond every finite number.
"""

# numba types are unknown to the type checker inside compiled functions
# pyright: reportUnknownParameterType=false, reportMissingParameterType=false
# pyright: reportUntypedFunctionDecorator=false

from __future__ import annotations

from typing import Final

import numpy as np

from scout_core.codec.compiled import compiled, inlined
from scout_core.codec.group_reference import LARGEST_CODE, SMALLEST_STEP

LANES: Final = 32
"""Channels in the innermost loops. A constant, so that the compiler unrolls them into vectors; only
geometries whose value groups have this width are compiled."""
TILE: Final = 64
"""Value groups whose ranges are found together, in the first-level cache."""
_LARGEST_FINITE: Final = np.int16(0x7F7F)
_REACH: Final = np.float32(2.0**127 / 16)


@inlined
def _ordered(bits):
    """A bf16's place in the total order of floats, as int16."""
    word = np.int16(bits)
    return np.int16(word ^ ((word >> np.int16(15)) & np.int16(0x7FFF)))


@inlined
def _widened(bits):
    return np.uint32(np.uint32(bits) << np.uint32(16)).view(np.float32)


@inlined
def _rounded(value):
    raw = np.float32(value).view(np.uint32)
    return np.uint16(
        np.uint32(raw + np.uint32(0x7FFF) + ((raw >> np.uint32(16)) & np.uint32(1)))
        >> np.uint32(16)
    )


@inlined
def _step(lowest, highest):
    """bf16 bits of a group's step; infinite when the range is too large."""
    step = np.float32((highest - lowest) / np.float32(15))
    if step < SMALLEST_STEP:
        return np.uint16(0)
    return _rounded(step)


@inlined
def _fits(lowest, step):
    return np.float32(abs(lowest) * np.float32(0.0625) + step) < _REACH


@inlined
def _scale(step):
    return np.float32(16) / step if step > np.float32(0) else np.float32(0)


@inlined
def _code(element, offset, scale):
    scaled = np.rint(np.float32((element - offset) * scale))
    return np.uint8(np.int32(min(scaled, np.float32(LARGEST_CODE))))


@inlined
def _signed(nibble):
    """A fine nibble as -8..7."""
    return (np.int32(nibble) ^ np.int32(8)) - np.int32(8)


@inlined
def _measured(lowest, highest):
    """Offset bits and step bits of a group, and whether they are finite and in range."""
    low = np.uint16(_ordered(lowest))  # _ordered is its own inverse
    step = _step(_widened(low), _widened(np.uint16(_ordered(highest))))
    finite = highest <= _LARGEST_FINITE and lowest >= ~_LARGEST_FINITE
    return low, step, finite and _fits(_widened(low), _widened(step))


@inlined
def _coarse_pair(low, high):
    """A byte with the coarse nibbles of two codes."""
    return np.uint8(((low + np.uint8(8)) >> np.uint8(4)) | ((high + np.uint8(8)) & np.uint8(0xF0)))


@inlined
def _fine_pair(low, high):
    """A byte with the fine nibbles of two codes."""
    return np.uint8((low & np.uint8(15)) | np.uint8(high << np.uint8(4)))


@inlined
def _low_level(coarse, fine, offset, step):
    """bf16 bits of the element in the low nibbles."""
    code = (np.int32(coarse & np.uint8(15)) << np.int32(4)) + _signed(fine & np.uint8(15))
    return _rounded(offset + np.float32(code) * step)


@inlined
def _high_level(coarse, fine, offset, step):
    code = np.int32(coarse & np.uint8(0xF0)) + _signed(fine >> np.uint8(4))
    return _rounded(offset + np.float32(code) * step)


@compiled
def encode_keys(bits, offsets, steps, coarse, fine):
    """Quantises keys ``[slabs, positions, head_dim / 32, 32]``; False if they are out of range."""
    slabs, positions, blocks, _ = bits.shape
    groups = offsets.shape[1]
    lowest = np.empty((blocks, LANES), np.int16)
    highest = np.empty((blocks, LANES), np.int16)
    offset = np.empty((blocks, LANES), np.float32)
    scale = np.empty((blocks, LANES), np.float32)
    for slab in range(slabs):
        for group in range(groups):
            start = group * positions // groups
            stop = (group + 1) * positions // groups
            _channel_ranges(bits[slab, start:stop], lowest, highest)
            valid = True
            for block in range(blocks):
                for lane in range(LANES):
                    low_bits, step_bits, fits = _measured(lowest[block, lane], highest[block, lane])
                    valid &= fits
                    offsets[slab, group, block, lane] = low_bits
                    steps[slab, group, block, lane] = step_bits
                    offset[block, lane] = _widened(low_bits)
                    scale[block, lane] = _scale(_widened(step_bits))
            if not valid:
                return False
            _encode_rows(
                bits[slab, start:stop],
                coarse[slab, start:stop],
                fine[slab, start:stop],
                offset,
                scale,
            )
    return True


@compiled
def _channel_ranges(bits, lowest, highest):
    """Least and greatest element of each channel over some positions."""
    lowest[:] = np.int16(0x7FFF)
    highest[:] = np.int16(-0x8000)
    for row in range(bits.shape[0]):
        for block in range(lowest.shape[0]):
            for lane in range(LANES):
                place = _ordered(bits[row, block, lane])
                lowest[block, lane] = min(lowest[block, lane], place)
                highest[block, lane] = max(highest[block, lane], place)


@compiled
def _encode_rows(bits, coarse, fine, offset, scale):
    """Writes the nibbles of some positions under one offset and scale per channel."""
    half, with_fine = offset.shape[0] // 2, fine.shape[0] > 0
    low = np.empty(LANES, np.uint8)
    high = np.empty(LANES, np.uint8)
    for row in range(bits.shape[0]):
        for block in range(half):
            other = block + half
            for lane in range(LANES):
                element = _widened(bits[row, block, lane])
                low[lane] = _code(element, offset[block, lane], scale[block, lane])
            for lane in range(LANES):
                element = _widened(bits[row, other, lane])
                high[lane] = _code(element, offset[other, lane], scale[other, lane])
            for lane in range(LANES):
                coarse[row, block, lane] = _coarse_pair(low[lane], high[lane])
            if with_fine:
                for lane in range(LANES):
                    fine[row, block, lane] = _fine_pair(low[lane], high[lane])


@inlined
def _least(first, second, third, fourth):
    """In two steps that do not wait for each other."""
    return min(min(first, second), min(third, fourth))  # noqa: PLW3301 - flat would be one long chain


@inlined
def _most(first, second, third, fourth):
    return max(max(first, second), max(third, fourth))  # noqa: PLW3301 - flat would be one long chain


@compiled
def _row_ranges(groups, lowest, highest):
    """Least and greatest element of value groups ``[groups, 32]``, in steps of vector width."""
    small = np.empty((TILE, 8), np.int16)
    large = np.empty((TILE, 8), np.int16)
    for start in range(0, groups.shape[0], TILE):
        size = min(TILE, groups.shape[0] - start)
        for row in range(size):
            for lane in range(8):
                first = _ordered(groups[start + row, lane])
                second = _ordered(groups[start + row, lane + 8])
                third = _ordered(groups[start + row, lane + 16])
                fourth = _ordered(groups[start + row, lane + 24])
                small[row, lane] = _least(first, second, third, fourth)
                large[row, lane] = _most(first, second, third, fourth)
        for row in range(size):
            lowest[start + row] = min(
                _least(small[row, 0], small[row, 1], small[row, 2], small[row, 3]),
                _least(small[row, 4], small[row, 5], small[row, 6], small[row, 7]),
            )
            highest[start + row] = max(
                _most(large[row, 0], large[row, 1], large[row, 2], large[row, 3]),
                _most(large[row, 4], large[row, 5], large[row, 6], large[row, 7]),
            )


@compiled
def encode_values(bits, offsets, steps, coarse, fine):
    """Quantises values ``[slabs, positions, head_dim / 32, 32]``; False if out of range."""
    slabs, positions, blocks, _ = bits.shape
    half, with_fine = blocks // 2, fine.shape[1] > 0
    lowest = np.empty((positions, blocks), np.int16)
    highest = np.empty((positions, blocks), np.int16)
    offset = np.empty((positions, blocks), np.float32)
    scale = np.empty((positions, blocks), np.float32)
    low = np.empty(LANES, np.uint8)
    high = np.empty(LANES, np.uint8)
    for slab in range(slabs):
        _row_ranges(bits[slab].reshape(-1, LANES), lowest.reshape(-1), highest.reshape(-1))
        valid = True
        for row in range(positions):
            for block in range(blocks):
                low_bits, step_bits, fits = _measured(lowest[row, block], highest[row, block])
                valid &= fits
                offsets[slab, row, block] = low_bits
                steps[slab, row, block] = step_bits
                offset[row, block] = _widened(low_bits)
                scale[row, block] = _scale(_widened(step_bits))
        if not valid:
            return False
        for row in range(positions):
            for block in range(half):
                other = block + half
                base, factor = offset[row, block], scale[row, block]
                for lane in range(LANES):
                    low[lane] = _code(_widened(bits[slab, row, block, lane]), base, factor)
                base, factor = offset[row, other], scale[row, other]
                for lane in range(LANES):
                    high[lane] = _code(_widened(bits[slab, row, other, lane]), base, factor)
                for lane in range(LANES):
                    coarse[slab, row, block, lane] = _coarse_pair(low[lane], high[lane])
                if with_fine:
                    for lane in range(LANES):
                        fine[slab, row, block, lane] = _fine_pair(low[lane], high[lane])
    return True


@compiled
def decode_keys(bits, offsets, steps, coarse, fine):
    """Dequantises keys into ``bits`` ``[slabs, positions, head_dim / 32, 32]``."""
    slabs, positions, blocks, _ = bits.shape
    groups, half, with_fine = offsets.shape[1], blocks // 2, fine.shape[1] > 0
    offset = np.empty((blocks, LANES), np.float32)
    step = np.empty((blocks, LANES), np.float32)
    nibbles = np.zeros(LANES, np.uint8)
    for slab in range(slabs):
        for group in range(groups):
            for block in range(blocks):
                for lane in range(LANES):
                    offset[block, lane] = _widened(offsets[slab, group, block, lane])
                    step[block, lane] = _sixteenth(steps[slab, group, block, lane])
            for row in range(group * positions // groups, (group + 1) * positions // groups):
                for block in range(half):
                    other = block + half
                    if with_fine:
                        for lane in range(LANES):
                            nibbles[lane] = fine[slab, row, block, lane]
                    for lane in range(LANES):
                        pair = coarse[slab, row, block, lane]
                        bits[slab, row, block, lane] = _low_level(
                            pair, nibbles[lane], offset[block, lane], step[block, lane]
                        )
                    for lane in range(LANES):
                        pair = coarse[slab, row, block, lane]
                        bits[slab, row, other, lane] = _high_level(
                            pair, nibbles[lane], offset[other, lane], step[other, lane]
                        )


@compiled
def decode_values(bits, offsets, steps, coarse, fine):
    """Dequantises values into ``bits`` ``[slabs, positions, head_dim / 32, 32]``."""
    slabs, positions, blocks, _ = bits.shape
    half, with_fine = blocks // 2, fine.shape[1] > 0
    nibbles = np.zeros(LANES, np.uint8)
    for slab in range(slabs):
        for row in range(positions):
            for block in range(half):
                other = block + half
                if with_fine:
                    for lane in range(LANES):
                        nibbles[lane] = fine[slab, row, block, lane]
                offset = _widened(offsets[slab, row, block])
                step = _sixteenth(steps[slab, row, block])
                for lane in range(LANES):
                    pair = coarse[slab, row, block, lane]
                    bits[slab, row, block, lane] = _low_level(pair, nibbles[lane], offset, step)
                offset = _widened(offsets[slab, row, other])
                step = _sixteenth(steps[slab, row, other])
                for lane in range(LANES):
                    pair = coarse[slab, row, block, lane]
                    bits[slab, row, other, lane] = _high_level(pair, nibbles[lane], offset, step)


@inlined
def _sixteenth(step_bits):
    return _widened(step_bits) * np.float32(0.0625)

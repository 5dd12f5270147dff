"""Group quantisation compiled: the same sections, bit for bit, as ``group_reference`` fills.

Owns the loops and nothing else. Each kernel handles a range of slabs, holds no lock while it runs
and touches no shared state, so that several may run at once. Shapes: ``bits`` ``[layers, 2,
kv_heads, positions, head_dim / 32, 32]``; sections as in ``group_layout``, channels cut likewise.
Elements are compared as integers (``_ordered``), where NaN and infinity sort beyond every finite
number. Integers are cast after every operation: numba widens sums to 64 bits, which would halve
the elements of a vector.
"""

# numba types are unknown to the type checker inside compiled functions
# pyright: reportUnknownParameterType=false, reportMissingParameterType=false
# pyright: reportUntypedFunctionDecorator=false

from __future__ import annotations

from typing import Final

import numpy as np

from scout_core.codec.bf16 import rounded, widened
from scout_core.codec.compiled import Loop, compiled, compiled_with_fused_sums, inlined
from scout_core.codec.group_reference import LARGEST_CODE, SMALLEST_STEP

LANES: Final = 32
"""Channels in the innermost loops. A constant, so that the compiler unrolls them into vectors; only
geometries whose value groups have this width are compiled."""
TILE: Final = 64
"""Value groups whose ranges are found together, in the first-level cache."""
_LARGEST_FINITE: Final = np.int16(0x7F7F)
_REACH: Final = np.float32(2.0**127 / 16)
_INTEGRAL: Final = np.float32(1.5 * 2**23)
"""Added to a small number, it rounds it to an integer, ties to even, in the lowest bits."""


@inlined
def _ordered(bits):
    """A bf16's place in the total order of floats, as int16; its own inverse."""
    word = np.int16(bits)
    return np.int16(word ^ np.int16(np.int16(word >> np.int16(15)) & np.int16(0x7FFF)))


@inlined
def _fits(offset, step):
    """Whether no level of a group overflows bf16."""
    return np.float32(np.float32(abs(offset) * np.float32(0.0625)) + step) < _REACH


@inlined
def _code(bits, offset, scale):
    """The 8-bit code of an element."""
    scaled = np.float32(np.float32(widened(bits) - offset) * scale)
    scaled = min(scaled, np.float32(LARGEST_CODE))
    return np.uint8(np.float32(scaled + _INTEGRAL).view(np.uint32) & np.uint32(0xFF))


@inlined
def _coarse_pair(low, high):
    """A byte with the coarse nibbles of two codes."""
    upper = np.uint8(np.uint8(high + np.uint8(8)) & np.uint8(0xF0))
    return np.uint8(np.uint8(np.uint8(low + np.uint8(8)) >> np.uint8(4)) | upper)


@inlined
def _fine_pair(low, high):
    """A byte with the fine nibbles of two codes."""
    return np.uint8(np.uint8(low & np.uint8(15)) | np.uint8(high << np.uint8(4)))


@inlined
def _signed(nibble):
    """A fine nibble as -8..7."""
    return np.int32(np.int32(nibble ^ np.uint8(8)) - np.int32(8))


@compiled
def _scales(lowest, highest, offsets, steps, wide):
    """Offsets and steps of groups from their ranges; whether all are finite and in range.

    ``wide`` ``[2, groups]`` gets the offsets and the codes per unit, as float32.
    """
    refused = np.int32(0)
    for group in range(lowest.size):
        low_bits = np.uint16(_ordered(lowest[group]))
        low, high = widened(low_bits), widened(np.uint16(_ordered(highest[group])))
        exact = np.float32(np.float32(high - low) / np.float32(15))
        step_bits = np.uint16(0) if exact < SMALLEST_STEP else rounded(exact)
        step = widened(step_bits)
        refused |= np.int32(highest[group] > _LARGEST_FINITE)
        refused |= np.int32(lowest[group] < ~_LARGEST_FINITE)
        refused |= np.int32(not _fits(low, step))
        offsets[group], steps[group], wide[0, group] = low_bits, step_bits, low
        is_constant = step == np.float32(0)
        divisor = np.float32(1) if is_constant else step
        wide[1, group] = np.float32(0) if is_constant else np.float32(16) / divisor
    return refused == 0


@compiled
def _channel_ranges(rows, lowest, highest):
    """Least and greatest element of each channel of ``[positions, blocks, 32]``."""
    lowest[:] = np.int16(0x7FFF)
    highest[:] = np.int16(-0x8000)
    for row in range(rows.shape[0]):
        for block in range(rows.shape[1]):
            for lane in range(LANES):
                place = _ordered(rows[row, block, lane])
                lowest[block, lane] = min(lowest[block, lane], place)
                highest[block, lane] = max(highest[block, lane], place)


@compiled
def _halve(lowest, highest, to_lowest, to_highest):
    """Ranges of neighbouring pairs of ranges."""
    for pair in range(to_lowest.size):
        to_lowest[pair] = min(lowest[2 * pair], lowest[2 * pair + 1])
        to_highest[pair] = max(highest[2 * pair], highest[2 * pair + 1])


@compiled
def _row_ranges(elements, lowest, highest):
    """Least and greatest of every 32 ``elements``: by halves of whole tiles, which are vectors;
    one group after the other would be a chain of dependent steps."""
    low, high = np.empty(TILE * 16, np.int16), np.empty(TILE * 16, np.int16)
    less, more = np.empty(TILE * 8, np.int16), np.empty(TILE * 8, np.int16)
    for start in range(0, lowest.size, TILE):
        size = min(TILE, lowest.size - start)
        tile = elements[start * LANES : (start + size) * LANES]
        for pair in range(size * 16):
            first, second = _ordered(tile[2 * pair]), _ordered(tile[2 * pair + 1])
            low[pair] = min(first, second)
            high[pair] = max(first, second)
        _halve(low, high, less[: size * 8], more[: size * 8])
        _halve(less, more, low[: size * 4], high[: size * 4])
        _halve(low, high, less[: size * 2], more[: size * 2])
        _halve(less, more, lowest[start : start + size], highest[start : start + size])


@compiled
def _encode_channels(rows, offset, scale, coarse, fine):
    """Nibbles of rows ``[positions, blocks, 32]`` under an offset and scale per channel."""
    half = rows.shape[1] // 2
    for row in range(rows.shape[0]):
        for block in range(half):
            other = block + half
            for lane in range(LANES):
                low = _code(rows[row, block, lane], offset[block, lane], scale[block, lane])
                high = _code(rows[row, other, lane], offset[other, lane], scale[other, lane])
                coarse[row, block, lane] = _coarse_pair(low, high)
                if fine.size > 0:
                    fine[row, block, lane] = _fine_pair(low, high)


@compiled
def _encode_positions(rows, offset, scale, coarse, fine):
    """Nibbles of rows ``[positions, blocks, 32]`` under an offset and scale per block."""
    half = rows.shape[1] // 2
    for row in range(rows.shape[0]):
        for block in range(half):
            other = block + half
            low_offset, low_scale = offset[row, block], scale[row, block]
            high_offset, high_scale = offset[row, other], scale[row, other]
            for lane in range(LANES):
                low = _code(rows[row, block, lane], low_offset, low_scale)
                high = _code(rows[row, other, lane], high_offset, high_scale)
                coarse[row, block, lane] = _coarse_pair(low, high)
                if fine.size > 0:
                    fine[row, block, lane] = _fine_pair(low, high)


@compiled
def encode_keys(bits, slabs, offsets, steps, coarse, fine):
    """Quantises the keys of slabs ``slabs[0]`` to ``slabs[1]``; False if out of range."""
    _, _, heads, positions, blocks, _ = bits.shape
    groups = offsets.shape[1]
    lowest = np.empty((blocks, LANES), np.int16)
    highest = np.empty((blocks, LANES), np.int16)
    wide = np.empty((2, blocks, LANES), np.float32)
    for slab in range(slabs[0], slabs[1]):
        keys = bits[slab // heads, 0, slab % heads]
        for group in range(groups):
            start, stop = group * positions // groups, (group + 1) * positions // groups
            rows = keys[start:stop]
            _channel_ranges(rows, lowest, highest)
            if not _scales(
                lowest.reshape(-1),
                highest.reshape(-1),
                offsets[slab, group].reshape(-1),
                steps[slab, group].reshape(-1),
                wide.reshape(2, -1),
            ):
                return False
            refined = fine[slab, start:stop]
            _encode_channels(rows, wide[0], wide[1], coarse[slab, start:stop], refined)
    return True


@compiled
def encode_values(bits, slabs, offsets, steps, coarse, fine):
    """Quantises the values of slabs ``slabs[0]`` to ``slabs[1]``; False if out of range."""
    _, _, heads, positions, blocks, _ = bits.shape
    lowest = np.empty(positions * blocks, np.int16)
    highest = np.empty(positions * blocks, np.int16)
    wide = np.empty((2, positions, blocks), np.float32)
    for slab in range(slabs[0], slabs[1]):
        values = bits[slab // heads, 1, slab % heads]
        _row_ranges(values.reshape(-1), lowest, highest)
        if not _scales(
            lowest,
            highest,
            offsets[slab].reshape(-1),
            steps[slab].reshape(-1),
            wide.reshape(2, -1),
        ):
            return False
        _encode_positions(values, wide[0], wide[1], coarse[slab], fine[slab])
    return True


@inlined
def _low_code(coarse, fine):
    """The code in the low nibbles, as float32."""
    code = np.int32(np.int32(coarse & np.uint8(15)) << np.int32(4))
    return np.float32(np.int32(code + _signed(np.uint8(fine & np.uint8(15)))))


@inlined
def _high_code(coarse, fine):
    code = np.int32(coarse & np.uint8(0xF0))
    return np.float32(np.int32(code + _signed(np.uint8(fine >> np.uint8(4)))))


@inlined
def _low_level(coarse):
    """Sixteen times the low nibble, as float32: the code without refinement."""
    return np.float32(np.int32(np.int32(coarse & np.uint8(15)) << np.int32(4)))


@inlined
def _high_level(coarse):
    return np.float32(np.int32(coarse & np.uint8(0xF0)))


@inlined
def _sixteenth(step_bits):
    return np.float32(widened(step_bits) * np.float32(0.0625))


@compiled
def _are_valid(offsets, steps):
    """Whether every step is a finite non-negative number and no level overflows."""
    refused = np.int32(0)
    for group in range(offsets.size):
        step = steps[group]
        refused |= np.int32(np.uint16(offsets[group] & np.uint16(0x7F80)) == np.uint16(0x7F80))
        refused |= np.int32(step >= np.uint16(0x7F80))  # infinite, no number, or a sign
        refused |= np.int32(not _fits(widened(offsets[group]), widened(step)))
    return refused == 0


def _channel_decoder(with_fine: bool) -> Loop:
    """Rows ``[positions, blocks, 32]`` from nibbles, offset and sixteenth of a step per channel.

    Whether there are fine nibbles is a constant here, and each line a view of its own: at 4 bits
    that is two fifths faster. One loop for keys and values, with a value group's numbers broadcast
    over its lanes, was a tenth slower for values than theirs below.
    """

    @compiled_with_fused_sums
    def decode(rows, offset, step, coarse, fine):
        half = rows.shape[1] // 2
        for row in range(rows.shape[0]):
            for block in range(half):
                other = block + half
                pairs = coarse[row, block]
                refined = fine[row, block] if with_fine else pairs
                line, offsets, steps = rows[row, block], offset[block], step[block]
                for lane in range(LANES):
                    pair = pairs[lane]
                    code = _low_code(pair, refined[lane]) if with_fine else _low_level(pair)
                    line[lane] = rounded(offsets[lane] + code * steps[lane])
                line, offsets, steps = rows[row, other], offset[other], step[other]
                for lane in range(LANES):
                    pair = pairs[lane]
                    code = _high_code(pair, refined[lane]) if with_fine else _high_level(pair)
                    line[lane] = rounded(offsets[lane] + code * steps[lane])

    return decode


_decode_fine_channels = _channel_decoder(with_fine=True)
_decode_coarse_channels = _channel_decoder(with_fine=False)


def _position_decoder(with_fine: bool) -> Loop:
    """Rows ``[positions, blocks, 32]`` from nibbles, offset and step per block."""

    @compiled_with_fused_sums
    def decode(rows, offsets, steps, coarse, fine):
        half = rows.shape[1] // 2
        for row in range(rows.shape[0]):
            for block in range(half):
                other = block + half
                pairs = coarse[row, block]
                refined = fine[row, block] if with_fine else pairs
                line, offset = rows[row, block], widened(offsets[row, block])
                step = _sixteenth(steps[row, block])
                for lane in range(LANES):
                    pair = pairs[lane]
                    code = _low_code(pair, refined[lane]) if with_fine else _low_level(pair)
                    line[lane] = rounded(offset + code * step)
                line, offset = rows[row, other], widened(offsets[row, other])
                step = _sixteenth(steps[row, other])
                for lane in range(LANES):
                    pair = pairs[lane]
                    code = _high_code(pair, refined[lane]) if with_fine else _high_level(pair)
                    line[lane] = rounded(offset + code * step)

    return decode


_decode_fine_positions = _position_decoder(with_fine=True)
_decode_coarse_positions = _position_decoder(with_fine=False)


@compiled
def decode_keys(bits, slabs, offsets, steps, coarse, fine):
    """Dequantises the keys of slabs ``slabs[0]`` to ``slabs[1]``; False if a group is invalid."""
    _, _, heads, positions, blocks, _ = bits.shape
    groups = offsets.shape[1]
    offset = np.empty((blocks, LANES), np.float32)
    step = np.empty((blocks, LANES), np.float32)
    for slab in range(slabs[0], slabs[1]):
        if not _are_valid(offsets[slab].reshape(-1), steps[slab].reshape(-1)):
            return False
        keys = bits[slab // heads, 0, slab % heads]
        for group in range(groups):
            start, stop = group * positions // groups, (group + 1) * positions // groups
            for block in range(blocks):
                for lane in range(LANES):
                    offset[block, lane] = widened(offsets[slab, group, block, lane])
                    step[block, lane] = _sixteenth(steps[slab, group, block, lane])
            rows, nibbles, refined = keys[start:stop], coarse[slab, start:stop], fine[slab]
            if fine.size > 0:
                _decode_fine_channels(rows, offset, step, nibbles, refined[start:stop])
            else:
                _decode_coarse_channels(rows, offset, step, nibbles, refined)
    return True


@compiled
def decode_values(bits, slabs, offsets, steps, coarse, fine):
    """Dequantises the values of slabs ``slabs[0]`` to ``slabs[1]``; False if a group is invalid."""
    heads = bits.shape[2]
    for slab in range(slabs[0], slabs[1]):
        if not _are_valid(offsets[slab].reshape(-1), steps[slab].reshape(-1)):
            return False
        values = bits[slab // heads, 1, slab % heads]
        if fine.size > 0:
            _decode_fine_positions(values, offsets[slab], steps[slab], coarse[slab], fine[slab])
        else:
            _decode_coarse_positions(values, offsets[slab], steps[slab], coarse[slab], fine[slab])
    return True

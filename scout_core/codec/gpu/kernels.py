"""Group quantisation as Triton kernels: the bytes of ``group_reference``, in one pass.

Owns the arithmetic and the addressing on the GPU; knows nothing of tensors, launches or errors
(``launch`` does), except that a kernel writes 1 to ``fault`` where the reference would refuse.

An element's low and high nibble partner lie half a row apart, so a tile holds both as two equal
tensors: a byte is packed in the thread that loaded its elements. Rows past a tile's end repeat the
last row when they are read and are masked when they are written, which leaves ranges untouched.

Bit-equality rests on: no contraction in the encoder (launched with ``enable_fp_fusion=False``),
IEEE division, integer comparison of floats (-0 below 0, NaN beyond all), and rounding by adding
1.5 · 2^23, which is round-half-even below 2^22. Codes stay below 241 (a step is rounded by at most
2^-9 of itself), so the reference's bound of 247 never acts on them.
"""

# Triton's values are unknown to the type checker inside compiled functions
# pyright: reportUnknownParameterType=false, reportMissingParameterType=false
# pyright: reportUntypedFunctionDecorator=false, reportMissingImports=false
# ruff: noqa: N803, N806 - upper case marks compile-time constants, as everywhere in Triton

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _ordered(word):
    """A float's 32 bits as an integer in the total order of floats; its own inverse."""
    return word ^ ((word >> 31) & 0x7FFFFFFF)


@triton.jit
def _widened(bits):
    """int16 bits of a bf16 as the 32 bits of the equal float."""
    return bits.to(tl.int32) << 16


@triton.jit
def _as_float(word):
    return word.to(tl.float32, bitcast=True)


@triton.jit
def _fits(offset, step):
    """Whether no level of the group leaves bf16: |offset| + 16 · step < 2^127."""
    return tl.abs(offset) * 0.0625 + step < 10633823966279326983230456482242756608.0


@triton.jit
def _measured(places, AXIS: tl.constexpr):
    """Of groups along an axis, from their elements in order: offset and step words, offset, scale,
    and whether it is refused."""
    lowest, highest = tl.min(places, AXIS), tl.max(places, AXIS)
    finite = (highest <= 0x7F7F0000) & (lowest >= -0x7F7F0001)
    offset_word = _ordered(lowest)
    offset = _as_float(offset_word)
    span = _as_float(_ordered(highest)) - offset
    # Two divisions, each an estimate and one correction, which rounds as IEEE division does: no
    # quotient by 15, or by a step's 8 bits, is nearer than 1/512 of a unit to a rounding boundary.
    estimate = span * 0.06666667014360428
    step = tl.fma(tl.fma(estimate, -15.0, span), 0.06666667014360428, estimate)
    raw = step.to(tl.int32, bitcast=True)
    rounded = (raw + 0x7FFF + ((raw >> 16) & 1)) & -0x10000
    kept = step >= 7.888609052210118e-31  # SMALLEST_STEP, 2^-100
    step_word = tl.where(kept, rounded, 0)
    divisor = tl.where(kept, _as_float(rounded), 1.0)
    inverse = 16.0 / divisor
    inverse = tl.fma(tl.fma(inverse, -divisor, 16.0), inverse * 0.0625, inverse)
    scale = tl.where(kept, inverse, 0.0)
    in_range = step < 2.1267647932558654e37  # 2^124; false where the span overflowed
    refused = (finite & in_range & _fits(offset, _as_float(step_word))) == 0
    return offset_word, step_word, offset, scale, refused


@triton.jit
def _code(word, offset, scale):
    """The 8-bit code in the low bits of an int32 (bits above the ninth are the constant's)."""
    scaled = (_as_float(word) - offset) * scale
    return (scaled + 12582912.0).to(tl.int32, bitcast=True)


@triton.jit
def _store_groups(pointers, place, offset_word, step_word, mask):
    """Writes offsets and steps as bf16."""
    tl.store(pointers[1] + place, (offset_word >> 16).to(tl.int16), mask=mask)
    tl.store(pointers[2] + place, (step_word >> 16).to(tl.int16), mask=mask)


@triton.jit
def _store_pairs(coarse, fine, low, high, mask, WITH_FINE: tl.constexpr):
    """Packs and writes the nibbles of two tensors of codes."""
    packed = (((low + 8) >> 4) & 15) | ((high + 8) & 0xF0)
    tl.store(coarse, packed.to(tl.uint8), mask=mask)
    if WITH_FINE:
        tl.store(fine, ((low & 15) | ((high & 15) << 4)).to(tl.uint8), mask=mask)


@triton.jit
def _level(coarse, fine, offset, step, WITH_FINE: tl.constexpr, NATIVE: tl.constexpr):
    """bf16 bits of levels, from sixteen times the coarse nibble and the fine nibble, both int32.

    NATIVE rounds by the GPU's instruction (cvt.rn); Triton's interpreter truncates there.
    """
    if WITH_FINE:
        code = _as_float(0x4B000000 | (coarse + (fine ^ 8))) - 8388616.0
    else:
        code = _as_float(0x4B000000 | coarse) - 8388608.0
    level = offset + code * (step * 0.0625)
    if NATIVE:
        bits = level.to(tl.bfloat16).to(tl.int16, bitcast=True)
    else:
        raw = level.to(tl.int32, bitcast=True)
        bits = ((raw + 0x7FFF + ((raw >> 16) & 1)) >> 16).to(tl.int16)
    return bits


@triton.jit
def _slab_base(strides, slab, kv_heads):
    """Element offset of a (layer, head) slab in the cache."""
    layer = slab // kv_heads
    head = slab - layer * kv_heads
    return layer.to(tl.int64) * strides[0] + head.to(tl.int64) * strides[1]


@triton.jit
def _key_tile(sizes, HALF: tl.constexpr, LANES: tl.constexpr, VECTOR: tl.constexpr):
    """A key program's slab, group and channels; the group's first position, and how many it has."""
    TILES: tl.constexpr = (HALF + LANES - 1) // LANES
    positions, groups = sizes[1], sizes[2]
    group = tl.program_id(0) // TILES
    slab = tl.program_id(1)
    lane = tl.max_contiguous(tl.arange(0, LANES), VECTOR)
    channel = (tl.program_id(0) % TILES) * LANES + lane
    first = group * positions // groups
    rows = (group + 1) * positions // groups - first
    return slab, group, channel, first, rows


@triton.jit
def _halves(address, inside, HALF: tl.constexpr, WHOLE: tl.constexpr):
    """The elements from ``address`` on and their partners half a row on, as the bits of floats."""
    if WHOLE:
        low = _widened(tl.load(address))
        high = _widened(tl.load(address + HALF))
    else:
        low = _widened(tl.load(address, mask=inside, other=0))
        high = _widened(tl.load(address + HALF, mask=inside, other=0))
    return low, high


@triton.jit
def encode_keys(pointers, strides, sizes, SHAPE: tl.constexpr):
    """One program: up to 32 positions of one group and LANES channel pairs of one slab.

    ``pointers``: bits, offsets, steps, coarse, fine, fault; ``strides`` in elements: layer, head,
    position; ``sizes``: kv_heads, positions, groups; SHAPE: HALF, LANES, WITH_FINE,
    VECTOR (channels a thread holds). Grid: (groups · channel tiles, slabs).
    """
    HALF: tl.constexpr = SHAPE[0]
    LANES: tl.constexpr = SHAPE[1]
    positions, groups = sizes[1], sizes[2]
    slab, group, channel, first, rows = _key_tile(sizes, HALF, LANES, SHAPE[3])
    inside = channel < HALF
    row = tl.arange(0, 32)[:, None]
    start = pointers[0] + _slab_base(strides, slab, sizes[0]) + first.to(tl.int64) * strides[2]
    address = start + tl.minimum(row, rows - 1) * strides[2] + channel[None, :]
    low, high = _halves(address, inside[None, :], HALF, HALF % LANES == 0)
    low_places, high_places = _ordered(low), _ordered(high)
    low_offset_word, low_step_word, low_offset, low_scale, low_refused = _measured(low_places, 0)
    high_offset_word, high_step_word, high_offset, high_scale, high_refused = _measured(
        high_places, 0
    )
    place = (slab.to(tl.int64) * groups + group) * (2 * HALF) + channel
    _store_groups(pointers, place, low_offset_word, low_step_word, inside)
    _store_groups(pointers, place + HALF, high_offset_word, high_step_word, inside)
    tl.store(pointers[5] + channel * 0, 1, mask=inside & (low_refused | high_refused))
    pair = (slab.to(tl.int64) * positions + first) * HALF + row * HALF + channel[None, :]
    low_code = _code(low, low_offset[None, :], low_scale[None, :])
    high_code = _code(high, high_offset[None, :], high_scale[None, :])
    mask = (row < rows) & inside[None, :]
    _store_pairs(pointers[3] + pair, pointers[4] + pair, low_code, high_code, mask, SHAPE[2])


@triton.jit
def encode_values(pointers, strides, sizes, SHAPE: tl.constexpr):
    """One program: UNITS pairs of value groups of one slab, a pair being half a row apart.

    ``pointers`` and ``strides`` as for keys; ``sizes``: kv_heads, positions; SHAPE: HALF, GROUP,
    WITH_FINE, VECTOR, UNITS, LANES (GROUP rounded up to a power of two). Grid: (unit tiles, slabs).
    """
    HALF: tl.constexpr = SHAPE[0]
    GROUP: tl.constexpr = SHAPE[1]
    BLOCKS: tl.constexpr = HALF // GROUP
    UNITS: tl.constexpr = SHAPE[4]
    LANES: tl.constexpr = SHAPE[5]
    slab = tl.program_id(1)
    start = tl.program_id(0) * UNITS
    units = sizes[1] * BLOCKS
    unit = start + tl.arange(0, UNITS)
    held = tl.minimum(unit, units - 1)
    row, block = held // BLOCKS, held % BLOCKS
    VECTOR: tl.constexpr = SHAPE[3]
    lane = tl.max_contiguous(tl.arange(0, LANES), VECTOR)
    lanes = tl.minimum(lane, GROUP - 1) if GROUP != LANES else lane
    base = pointers[0] + _slab_base(strides, slab, sizes[0])
    address = base + (row.to(tl.int64) * strides[2] + block * GROUP)[:, None] + lanes[None, :]
    low = _widened(tl.load(address))
    high = _widened(tl.load(address + HALF))
    low_places, high_places = _ordered(low), _ordered(high)
    low_offset_word, low_step_word, low_offset, low_scale, low_refused = _measured(low_places, 1)
    high_offset_word, high_step_word, high_offset, high_scale, high_refused = _measured(
        high_places, 1
    )
    inside = unit < units
    first = slab.to(tl.int64) * units
    place = first * 2 + row * (2 * BLOCKS) + block
    _store_groups(pointers, place, low_offset_word, low_step_word, inside)
    _store_groups(pointers, place + BLOCKS, high_offset_word, high_step_word, inside)
    tl.store(pointers[5] + unit * 0, 1, mask=inside & (low_refused | high_refused))
    pair = first * GROUP + unit[:, None] * GROUP + lane[None, :]
    low_code = _code(low, low_offset[:, None], low_scale[:, None])
    high_code = _code(high, high_offset[:, None], high_scale[:, None])
    mask = inside[:, None] & (lane < GROUP)[None, :] if GROUP != LANES else inside[:, None]
    _store_pairs(pointers[3] + pair, pointers[4] + pair, low_code, high_code, mask, SHAPE[2])


@triton.jit
def _read_pairs(coarse, fine, mask, WITH_FINE: tl.constexpr):
    """Coarse and fine nibble (int32) of the low and of the high elements."""
    packed = tl.load(coarse, mask=mask, other=0).to(tl.int32)
    refinement = packed
    if WITH_FINE:
        refinement = tl.load(fine, mask=mask, other=0).to(tl.int32)
    return (packed & 15) << 4, refinement & 15, packed & 0xF0, refinement >> 4


@triton.jit
def _read_group(offsets, steps, mask, fault):
    """Offset and step of groups as floats; reports those that the reference refuses."""
    offset_word = _widened(tl.load(offsets, mask=mask, other=0))
    step_word = _widened(tl.load(steps, mask=mask, other=0))
    infinite = ((offset_word & 0x7F800000) == 0x7F800000) | (step_word >= 0x7F800000)
    offset, step = _as_float(offset_word), _as_float(step_word)
    refused = infinite | (step_word < 0) | (_fits(offset, step) == 0)
    tl.store(fault + tl.zeros_like(offset_word), 1, mask=mask & refused)
    return tl.where(refused, 0.0, offset), tl.where(refused, 0.0, step)


@triton.jit
def decode_keys(pointers, strides, sizes, SHAPE: tl.constexpr):
    """The inverse of ``encode_keys``, same tiles and arguments; SHAPE ends in NATIVE."""
    HALF: tl.constexpr = SHAPE[0]
    LANES: tl.constexpr = SHAPE[1]
    positions, groups = sizes[1], sizes[2]
    slab, group, channel, first, rows = _key_tile(sizes, HALF, LANES, SHAPE[3])
    inside = channel < HALF
    place = (slab.to(tl.int64) * groups + group) * (2 * HALF) + channel
    low_offset, low_step = _read_group(
        pointers[1] + place, pointers[2] + place, inside, pointers[5]
    )
    high_offset, high_step = _read_group(
        pointers[1] + place + HALF, pointers[2] + place + HALF, inside, pointers[5]
    )
    row = tl.arange(0, 32)[:, None]
    mask = (row < rows) & inside[None, :]
    pair = (slab.to(tl.int64) * positions + first) * HALF + row * HALF + channel[None, :]
    low, low_fine, high, high_fine = _read_pairs(
        pointers[3] + pair, pointers[4] + pair, mask, SHAPE[2]
    )
    start = pointers[0] + _slab_base(strides, slab, sizes[0]) + first.to(tl.int64) * strides[2]
    address = start + row * strides[2] + channel[None, :]
    low_level = _level(low, low_fine, low_offset[None, :], low_step[None, :], SHAPE[2], SHAPE[4])
    high_level = _level(
        high, high_fine, high_offset[None, :], high_step[None, :], SHAPE[2], SHAPE[4]
    )
    tl.store(address, low_level, mask=mask)
    tl.store(address + HALF, high_level, mask=mask)


@triton.jit
def decode_values(pointers, strides, sizes, SHAPE: tl.constexpr):
    """The inverse of ``encode_values``, same tiles and arguments; SHAPE ends in NATIVE."""
    HALF: tl.constexpr = SHAPE[0]
    GROUP: tl.constexpr = SHAPE[1]
    BLOCKS: tl.constexpr = HALF // GROUP
    UNITS: tl.constexpr = SHAPE[4]
    LANES: tl.constexpr = SHAPE[5]
    slab = tl.program_id(1)
    units = sizes[1] * BLOCKS
    unit = tl.program_id(0) * UNITS + tl.arange(0, UNITS)
    inside = unit < units
    row, block = unit // BLOCKS, unit % BLOCKS
    VECTOR: tl.constexpr = SHAPE[3]
    lane = tl.max_contiguous(tl.arange(0, LANES), VECTOR)
    first = slab.to(tl.int64) * units
    place = first * 2 + row * (2 * BLOCKS) + block
    low_offset, low_step = _read_group(
        pointers[1] + place, pointers[2] + place, inside, pointers[5]
    )
    high_offset, high_step = _read_group(
        pointers[1] + place + BLOCKS, pointers[2] + place + BLOCKS, inside, pointers[5]
    )
    mask = inside[:, None] & (lane < GROUP)[None, :] if GROUP != LANES else inside[:, None]
    pair = first * GROUP + unit[:, None] * GROUP + lane[None, :]
    low, low_fine, high, high_fine = _read_pairs(
        pointers[3] + pair, pointers[4] + pair, mask, SHAPE[2]
    )
    base = pointers[0] + _slab_base(strides, slab, sizes[0])
    address = base + (row.to(tl.int64) * strides[2] + block * GROUP)[:, None] + lane[None, :]
    low_level = _level(low, low_fine, low_offset[:, None], low_step[:, None], SHAPE[2], SHAPE[6])
    high_level = _level(
        high, high_fine, high_offset[:, None], high_step[:, None], SHAPE[2], SHAPE[6]
    )
    tl.store(address, low_level, mask=mask)
    tl.store(address + HALF, high_level, mask=mask)

"""Group quantisation in plain numpy: the definition that the compiled kernels must match.

Owns the arithmetic, element by element, of quantising and dequantising; knows nothing of payload
order (``group_layout`` cuts the views). bf16 values are handled as their 16 bits.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from scout_core.codec.group_layout import GroupSections, Octets, Words

Floats = NDArray[np.float32]

LARGEST_CODE: Final = 247
"""16 · 15 + 7: the last coarse level and the largest fine nibble."""
SMALLEST_STEP: Final = np.float32(2.0**-100)
"""A group of smaller range is stored as its offset alone (step 0)."""
EXPONENT_MASK: Final = np.uint16(0x7F80)
SIGN_MASK: Final = np.uint16(0x8000)
LARGEST_MAGNITUDE: Final = np.float32(2.0**127)
"""Bound on |offset| + 16 · step, so that no decoded element overflows bf16."""


def quantise(bits: Words, sections: GroupSections, group_channels: int) -> bool:
    """Fills the sections from ``bits`` ``[layers, 2, kv_heads, positions, head_dim]``.

    Returns False if an element is not finite or a group's range is too large.
    """
    _, _, _, positions, head_dim = bits.shape
    slabs, groups, _ = sections.key_offsets.shape
    keys = bits[:, 0].reshape(slabs, positions, head_dim)
    values = bits[:, 1].reshape(slabs, positions, -1, group_channels)
    with_fine = sections.key_fine.size > 0
    for group in range(groups):
        rows = slice(group * positions // groups, (group + 1) * positions // groups)
        offsets, steps = sections.key_offsets[:, group], sections.key_steps[:, group]
        if not _measure(keys[:, rows], 1, offsets, steps):
            return False
        codes = _codes(keys[:, rows], offsets[:, None], steps[:, None])
        sections.key_coarse[:, rows] = _pack((codes + 8) >> 4)
        if with_fine:
            sections.key_fine[:, rows] = _pack(codes & 15)
    offsets, steps = sections.value_offsets, sections.value_steps
    if not _measure(values, 3, offsets, steps):
        return False
    codes = _codes(values, offsets[..., None], steps[..., None])
    codes = codes.reshape(slabs, positions, head_dim)
    sections.value_coarse[:] = _pack((codes + 8) >> 4)
    if with_fine:
        sections.value_fine[:] = _pack(codes & 15)
    return True


def dequantise(sections: GroupSections, bits: Words) -> bool:
    """Fills ``bits`` ``[layers, 2, kv_heads, positions, head_dim]``.

    Returns False if a group's offset or step is negative, NaN, infinite or too large.
    """
    if not (
        are_valid_groups(sections.key_offsets, sections.key_steps)
        and are_valid_groups(sections.value_offsets, sections.value_steps)
    ):
        return False
    layers, _, kv_heads, positions, head_dim = bits.shape
    slabs, groups, _ = sections.key_offsets.shape
    row_group = np.repeat(
        np.arange(groups),
        np.diff([group * positions // groups for group in range(groups + 1)]),
    )
    keys = _levels(
        _unpack(sections.key_coarse, sections.key_fine),
        _widen(sections.key_offsets)[:, row_group],
        _widen(sections.key_steps)[:, row_group],
    )
    value_codes = _unpack(sections.value_coarse, sections.value_fine)
    values = _levels(
        value_codes.reshape(*sections.value_offsets.shape, -1),
        _widen(sections.value_offsets)[..., None],
        _widen(sections.value_steps)[..., None],
    )
    shape = (layers, kv_heads, positions, head_dim)
    bits[:, 0] = keys.reshape(shape)
    bits[:, 1] = values.reshape(slabs, positions, head_dim).reshape(shape)
    return True


def are_valid_groups(offsets: Words, steps: Words) -> bool:
    """Whether every step is a finite non-negative number and no level overflows."""
    if bool(((offsets & EXPONENT_MASK) == EXPONENT_MASK).any()):
        return False
    if bool(((steps & EXPONENT_MASK) == EXPONENT_MASK).any() or (steps & SIGN_MASK).any()):
        return False
    reach = np.abs(_widen(offsets)) * np.float32(0.0625) + _widen(steps)
    return bool((reach < LARGEST_MAGNITUDE * np.float32(0.0625)).all())


def round_to_bf16(values: Floats) -> Words:
    """The 16 bits of the nearest bf16, ties to even; finite input."""
    raw = values.view(np.uint32)
    return ((raw + 0x7FFF + ((raw >> 16) & 1)) >> 16).astype(np.uint16)


def _widen(bits: Words) -> Floats:
    """bf16 bits as float32, exactly."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _ordered(bits: Words) -> NDArray[np.int16]:
    """Each element's place in the total order of floats (-0 before 0); its own inverse."""
    words = bits.view(np.int16)
    return words ^ ((words >> 15) & np.int16(0x7FFF))


def _measure(bits: Words, axis: int, offsets: Words, steps: Words) -> bool:
    """Writes each group's offset and step; False if not finite or the range is too large."""
    places = _ordered(bits)
    lowest = _ordered(places.min(axis=axis).view(np.uint16)).view(np.uint16)
    highest = _ordered(places.max(axis=axis).view(np.uint16)).view(np.uint16)
    for extremes in (lowest, highest):
        if bool(((extremes & EXPONENT_MASK) == EXPONENT_MASK).any()):
            return False
    offsets[:] = lowest
    with np.errstate(over="ignore"):
        step = np.asarray((_widen(highest) - _widen(lowest)) / np.float32(15), dtype=np.float32)
    if not np.isfinite(step).all():
        return False
    steps[:] = round_to_bf16(step)
    steps[step < SMALLEST_STEP] = 0
    return are_valid_groups(offsets, steps)


def _codes(bits: Words, offsets: Words, steps: Words) -> NDArray[np.int16]:
    """The 8-bit code of each element."""
    wide_steps = _widen(steps)
    scale = np.zeros_like(wide_steps)
    np.divide(np.float32(16), wide_steps, out=scale, where=wide_steps > 0)
    scaled = np.rint((_widen(bits) - _widen(offsets)) * scale)
    return np.minimum(scaled, np.float32(LARGEST_CODE)).astype(np.int16)


def _levels(codes: NDArray[np.int16], offsets: Floats, steps: Floats) -> Words:
    """bf16 bits of ``offset + code · step / 16``."""
    rise = codes.astype(np.float32) * (steps * np.float32(0.0625))
    return round_to_bf16(np.asarray(offsets + rise, dtype=np.float32))


def _pack(nibbles: NDArray[np.int16]) -> Octets:
    """Two nibbles a byte: the first half of the last axis low, the second half high."""
    half = nibbles.shape[-1] // 2
    return (nibbles[..., :half] | (nibbles[..., half:] << 4)).astype(np.uint8)


def _unpack(coarse: Octets, fine: Octets) -> NDArray[np.int16]:
    """Codes from coarse nibbles and, if there are any, fine ones."""
    codes = np.concatenate((coarse & 15, coarse >> 4), axis=-1).astype(np.int16) << 4
    if fine.size:
        refinement = np.concatenate((fine & 15, fine >> 4), axis=-1).astype(np.int16)
        codes += ((refinement + 8) & 15) - 8
    return codes

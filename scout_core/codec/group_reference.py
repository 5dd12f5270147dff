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
    keys = _widen(bits[:, 0]).reshape(slabs, positions, head_dim)
    values = _widen(bits[:, 1]).reshape(slabs, positions, -1, group_channels)
    if not (np.isfinite(keys).all() and np.isfinite(values).all()):
        return False
    fine = sections.key_fine.size > 0
    for group in range(groups):
        rows = slice(group * positions // groups, (group + 1) * positions // groups)
        block = keys[:, rows]
        if not _measure(
            block.min(axis=1),
            block.max(axis=1),
            sections.key_offsets[:, group],
            sections.key_steps[:, group],
        ):
            return False
        codes = _codes(
            block,
            _widen(sections.key_offsets[:, group])[:, None],
            _widen(sections.key_steps[:, group])[:, None],
        )
        sections.key_coarse[:, rows] = _pack((codes + 8) >> 4)
        if fine:
            sections.key_fine[:, rows] = _pack(codes & 15)
    if not _measure(
        values.min(axis=3), values.max(axis=3), sections.value_offsets, sections.value_steps
    ):
        return False
    codes = _codes(
        values,
        _widen(sections.value_offsets)[..., None],
        _widen(sections.value_steps)[..., None],
    ).reshape(slabs, positions, head_dim)
    sections.value_coarse[:] = _pack((codes + 8) >> 4)
    if fine:
        sections.value_fine[:] = _pack(codes & 15)
    return True


def dequantise(sections: GroupSections, bits: Words) -> None:
    """Fills ``bits`` ``[layers, 2, kv_heads, positions, head_dim]`` from valid sections."""
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


def _measure(lowest: Floats, highest: Floats, offsets: Words, steps: Words) -> bool:
    """Writes each group's offset and step; False if a group's range is too large."""
    offsets[:] = (lowest.view(np.uint32) >> 16).astype(np.uint16)
    with np.errstate(over="ignore"):
        step = np.divide(highest - lowest, np.float32(15), dtype=np.float32)
    if not np.isfinite(step).all():
        return False
    steps[:] = round_to_bf16(step)
    steps[step < SMALLEST_STEP] = 0
    return are_valid_groups(offsets, steps)


def _codes(elements: Floats, offsets: Floats, steps: Floats) -> NDArray[np.int16]:
    """The 8-bit code of each element."""
    scale = np.divide(np.float32(16), steps, out=np.zeros_like(steps), where=steps > 0)
    scaled = np.rint((elements - offsets) * scale)
    return np.minimum(scaled, np.float32(LARGEST_CODE)).astype(np.int16)


def _levels(codes: NDArray[np.int16], offsets: Floats, steps: Floats) -> Words:
    """bf16 bits of ``offset + code · step / 16``."""
    return round_to_bf16(offsets + codes.astype(np.float32) * (steps * np.float32(0.0625)))


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

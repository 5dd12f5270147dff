"""Group quantisation between tensors and payloads, shared by ``int4_groups`` and ``int8_groups``.

Owns the choice between the compiled kernels and their reference (equal bit for bit; compiled when
value groups are 32 wide, as for every head_dim that 64 divides), and the slicing over threads. The
format is in ``group_layout``, the arithmetic in ``group_reference``.
"""

from __future__ import annotations

from typing import Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from scout_core.codec import group_kernels, group_reference
from scout_core.codec.base import geometry_of, not_finite
from scout_core.codec.compiled import default_threads, run_sliced
from scout_core.codec.group_layout import GroupLayout, GroupSections, Octets, Words
from scout_core.geometry import KvGeometry

COMPILED_CHANNELS: Final = group_kernels.LANES


def encode_groups(
    kv: torch.Tensor, *, with_fine: bool, name: str, threads: int | None = None
) -> bytes:
    """Quantises a contiguous bf16 cache ``[layers, 2, kv_heads, positions, head_dim]``.

    Raises:
        CodecError: NaN, infinity, or a range beyond bf16 in a group.
    """
    layout = GroupLayout(geometry_of(kv), kv.shape[3])
    size = layout.coarse_bytes + (layout.fine_bytes if with_fine else 0)
    payload = np.empty(size, dtype=np.uint8)
    bits: Words = kv.view(torch.int16).numpy().view(np.uint16)
    sections = GroupSections.over(payload, layout)
    if layout.group_channels == COMPILED_CHANNELS:
        done = quantise_compiled(bits, sections, threads or default_threads())
    else:
        done = group_reference.quantise(bits, sections, layout.group_channels)
    if not done:
        raise not_finite(name)
    return payload.tobytes()


def decode_groups(
    payload: bytes | memoryview,
    geometry: KvGeometry,
    positions: int,
    *,
    name: str,
    threads: int | None = None,
) -> torch.Tensor:
    """Dequantises a payload whose size has been checked, to bf16.

    Raises:
        CodecError: a group's offset or step is negative, NaN, infinite or too large.
    """
    layout = GroupLayout(geometry, positions)
    sections = GroupSections.over(np.frombuffer(payload, dtype=np.uint8), layout)
    for offsets, steps in (
        (sections.key_offsets, sections.key_steps),
        (sections.value_offsets, sections.value_steps),
    ):
        if not group_reference.are_valid_groups(offsets, steps):
            raise not_finite(name)
    kv = torch.empty(geometry.shape(positions), dtype=torch.bfloat16)
    bits: Words = kv.view(torch.int16).numpy().view(np.uint16)
    if layout.group_channels == COMPILED_CHANNELS:
        dequantise_compiled(sections, bits, threads or default_threads())
    else:
        group_reference.dequantise(sections, bits)
    return kv


def quantise_compiled(bits: Words, sections: GroupSections, threads: int) -> bool:
    """``group_reference.quantise``, compiled, a slice of layers per thread."""

    def slice_of_layers(first: int, last: int) -> bool:
        for layer in range(first, last):
            keys, values = _layer(sections, layer, bits.shape[2])
            if not group_kernels.encode_keys(_lanes(bits[layer, 0]), *keys):
                return False
            if not group_kernels.encode_values(_lanes(bits[layer, 1]), *values):
                return False
        return True

    return run_sliced(slice_of_layers, bits.shape[0], bits.nbytes, threads)


def dequantise_compiled(sections: GroupSections, bits: Words, threads: int) -> None:
    """``group_reference.dequantise``, compiled, a slice of layers per thread."""

    def slice_of_layers(first: int, last: int) -> bool:
        for layer in range(first, last):
            keys, values = _layer(sections, layer, bits.shape[2])
            group_kernels.decode_keys(_lanes(bits[layer, 0]), *keys)
            group_kernels.decode_values(_lanes(bits[layer, 1]), *values)
        return True

    run_sliced(slice_of_layers, bits.shape[0], bits.nbytes, threads)


Element = TypeVar("Element", bound=np.generic)
Arrays = tuple[Words, Words, Octets, Octets]


def _layer(sections: GroupSections, layer: int, kv_heads: int) -> tuple[Arrays, Arrays]:
    """One layer's slabs of every section, shaped for the kernels: for keys, for values."""
    slabs = slice(layer * kv_heads, (layer + 1) * kv_heads)
    keys = (
        _lanes(sections.key_offsets[slabs]),
        _lanes(sections.key_steps[slabs]),
        _lanes(sections.key_coarse[slabs]),
        _lanes(sections.key_fine[slabs]),
    )
    values = (
        sections.value_offsets[slabs],
        sections.value_steps[slabs],
        _lanes(sections.value_coarse[slabs]),
        _lanes(sections.value_fine[slabs]),
    )
    return keys, values


def _lanes(array: NDArray[Element]) -> NDArray[Element]:
    """Splits the channel axis into blocks of the kernels' width."""
    blocks = array.shape[-1] // COMPILED_CHANNELS
    return array.reshape(*array.shape[:-1], blocks, COMPILED_CHANNELS)

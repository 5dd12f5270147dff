"""Codecs ``int4_groups`` and ``int8_groups``: group quantisation, without and with fine nibbles.

Owns the two codecs, the choice between the compiled kernels and their reference (equal bit for bit;
compiled when value groups are 32 wide, as for every head_dim that 64 divides), and the slicing over
threads. The format is in ``group_layout``, the arithmetic in ``group_reference``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from scout_core.codec import group_kernels, group_reference
from scout_core.codec.base import (
    CodecId,
    check_payload_bytes,
    checked_kv,
    geometry_of,
    not_finite,
)
from scout_core.codec.compiled import default_threads, run_sliced
from scout_core.codec.filled_bytes import filled_bytes
from scout_core.codec.group_layout import GroupLayout, GroupSections, Octets, Words
from scout_core.geometry import KvGeometry

COMPILED_CHANNELS: Final = group_kernels.LANES


@dataclass(frozen=True, slots=True)
class GroupsCodec:
    """About 5 bits an element for long blocks, 9 with fine nibbles; README.md has the bytes."""

    name: str
    codec_id: CodecId
    has_fine: bool
    is_fixed_rate = True

    def encode(self, kv: torch.Tensor) -> bytes:
        """See ``KvCodec.encode``; also refuses a range beyond bf16 in a group."""
        exact = checked_kv(kv)
        layout = GroupLayout(geometry_of(exact), exact.shape[3])
        bits = _bits(exact)

        def fill(payload: Octets) -> bool:
            sections = GroupSections.over(payload, layout)
            if layout.group_channels == COMPILED_CHANNELS:
                return quantise_compiled(bits, sections, default_threads())
            return group_reference.quantise(bits, sections, layout.group_channels)

        payload = filled_bytes(self._size(layout), fill)
        if payload is None:
            raise not_finite(self.name)
        return payload

    def decode(
        self, payload: bytes | memoryview, geometry: KvGeometry, positions: int
    ) -> torch.Tensor:
        """See ``KvCodec.decode``; refuses negative, infinite or too large offsets and steps."""
        check_payload_bytes(self, len(payload), geometry, positions)
        layout = GroupLayout(geometry, positions)
        sections = GroupSections.over(np.frombuffer(payload, dtype=np.uint8), layout)
        kv = torch.empty(geometry.shape(positions), dtype=torch.bfloat16)
        bits = _bits(kv)
        if layout.group_channels == COMPILED_CHANNELS:
            done = dequantise_compiled(sections, bits, default_threads())
        else:
            done = group_reference.dequantise(sections, bits)
        if not done:
            raise not_finite(self.name)
        return kv

    def encoded_bytes(self, geometry: KvGeometry, positions: int) -> int:
        """See ``KvCodec.encoded_bytes``; exact."""
        return self._size(GroupLayout(geometry, positions))

    def _size(self, layout: GroupLayout) -> int:
        return layout.coarse_bytes + (layout.fine_bytes if self.has_fine else 0)


INT8_GROUPS: Final = GroupsCodec("int8_groups", CodecId.INT8_GROUPS, has_fine=True)
INT4_GROUPS: Final = GroupsCodec("int4_groups", CodecId.INT4_GROUPS, has_fine=False)


def quantise_compiled(bits: Words, sections: GroupSections, threads: int) -> bool:
    """``group_reference.quantise``, compiled, a slice of slabs per thread."""
    elements, keys, values = _lanes(bits), *_shaped(sections)

    def slice_of_slabs(first: int, last: int) -> bool:
        slabs = (first, last)
        return bool(
            group_kernels.encode_keys(elements, slabs, *keys)
            and group_kernels.encode_values(elements, slabs, *values)
        )

    return run_sliced(slice_of_slabs, len(sections.key_offsets), bits.nbytes, threads)


def dequantise_compiled(sections: GroupSections, bits: Words, threads: int) -> bool:
    """``group_reference.dequantise``, compiled, a slice of slabs per thread; False if invalid."""
    elements, keys, values = _lanes(bits), *_shaped(sections)

    def slice_of_slabs(first: int, last: int) -> bool:
        slabs = (first, last)
        return bool(
            group_kernels.decode_keys(elements, slabs, *keys)
            and group_kernels.decode_values(elements, slabs, *values)
        )

    return run_sliced(slice_of_slabs, len(sections.key_offsets), bits.nbytes, threads)


Element = TypeVar("Element", bound=np.generic)
Arrays = tuple[Words, Words, Octets, Octets]


def _shaped(sections: GroupSections) -> tuple[Arrays, Arrays]:
    """The sections shaped for the kernels: for keys, for values."""
    keys = (
        _lanes(sections.key_offsets),
        _lanes(sections.key_steps),
        _lanes(sections.key_coarse),
        _lanes(sections.key_fine),
    )
    values = (
        sections.value_offsets,
        sections.value_steps,
        _lanes(sections.value_coarse),
        _lanes(sections.value_fine),
    )
    return keys, values


def _lanes(array: NDArray[Element]) -> NDArray[Element]:
    """Splits the channel axis into blocks of the kernels' width."""
    blocks = array.shape[-1] // COMPILED_CHANNELS
    return array.reshape(*array.shape[:-1], blocks, COMPILED_CHANNELS)


def _bits(kv: torch.Tensor) -> Words:
    """A contiguous bf16 tensor's 16-bit words, shared."""
    return kv.view(torch.int16).numpy().view(np.uint16)

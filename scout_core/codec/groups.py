"""Group quantisation between tensors and payloads, shared by ``int4_groups`` and ``int8_groups``.

Owns the choice between the compiled kernels and their reference; the format is in
``group_layout``, the arithmetic in ``group_reference``.
"""

from __future__ import annotations

import numpy as np
import torch

from scout_core.codec import group_reference
from scout_core.codec.base import geometry_of, not_finite
from scout_core.codec.group_layout import GroupLayout, GroupSections, Words
from scout_core.geometry import KvGeometry


def encode_groups(kv: torch.Tensor, *, with_fine: bool, name: str) -> bytes:
    """Quantises a contiguous bf16 cache ``[layers, 2, kv_heads, positions, head_dim]``.

    Raises:
        CodecError: NaN, infinity, or a range beyond bf16 in a group.
    """
    layout = GroupLayout(geometry_of(kv), kv.shape[3])
    size = layout.coarse_bytes + (layout.fine_bytes if with_fine else 0)
    payload = np.empty(size, dtype=np.uint8)
    bits: Words = kv.view(torch.int16).numpy().view(np.uint16)
    sections = GroupSections.over(payload, layout)
    if not group_reference.quantise(bits, sections, layout.group_channels):
        raise not_finite(name)
    return payload.tobytes()


def decode_groups(
    payload: bytes | memoryview, geometry: KvGeometry, positions: int, *, name: str
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
    group_reference.dequantise(sections, kv.view(torch.int16).numpy().view(np.uint16))
    return kv

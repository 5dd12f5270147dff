"""Group quantisation: how a cache is cut into groups, and where each part lies in the payload.

Owns the section layout shared by ``int4_groups`` and ``int8_groups``; knows no arithmetic. Keys
are grouped per channel over up to 32 positions, values per position over up to 32 channels (the
split KIVI reports, arXiv 2402.02750 §3): on the bundled model that halves the KL divergence of 4
bits against groups along the channels alone. A group has a bf16 offset (its minimum) and a bf16
step (a fifteenth of its range).

An element's code is ``q = round((x - offset) / (step / 16))`` in 0..247. Its *coarse* nibble is
``(q + 8) >> 4``, its *fine* nibble ``q - 16 * coarse`` in -8..7. int4 sends the coarse nibbles;
int8 sends the same bytes and then the fine nibbles, so that an upgrade sends only the difference.
Product and sum of a bf16 step and an 8-bit code are exact or rounded once in float32, with or
without fused multiply-add: every host decodes the same bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scout_core.codec.base import check_positions
from scout_core.errors import CodecError
from scout_core.geometry import KvGeometry

GROUP_POSITIONS: Final = 32
GROUP_CHANNELS: Final = 32

Words = NDArray[np.uint16]
Octets = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class GroupLayout:
    """Sizes of the sections for one geometry and position count.

    Raises:
        CodecError: odd head_dim, or positions out of range.
    """

    geometry: KvGeometry
    positions: int

    def __post_init__(self) -> None:
        check_positions(self.positions)
        if self.geometry.head_dim % 2:
            raise CodecError(f"Nibble codecs need an even head_dim, got {self.geometry.head_dim}.")

    @property
    def slabs(self) -> int:
        """(layer, head) pairs, in that order."""
        return self.geometry.layers * self.geometry.kv_heads

    @property
    def position_groups(self) -> int:
        """Groups a key channel is cut into; group i covers [i·P//G, (i+1)·P//G)."""
        return -(-self.positions // GROUP_POSITIONS)

    @property
    def group_channels(self) -> int:
        """Channels in a value group: the largest divisor of head_dim / 2 up to 32."""
        half = self.geometry.head_dim // 2
        return max(size for size in range(1, GROUP_CHANNELS + 1) if half % size == 0)

    @property
    def key_groups_shape(self) -> tuple[int, int, int]:
        """``[slabs, position groups, head_dim]``."""
        return (self.slabs, self.position_groups, self.geometry.head_dim)

    @property
    def value_groups_shape(self) -> tuple[int, int, int]:
        """``[slabs, positions, channel groups]``."""
        return (self.slabs, self.positions, self.geometry.head_dim // self.group_channels)

    @property
    def nibbles_shape(self) -> tuple[int, int, int]:
        """``[slabs, positions, head_dim / 2]``: channel c low, channel c + head_dim / 2 high."""
        return (self.slabs, self.positions, self.geometry.head_dim // 2)

    @property
    def coarse_bytes(self) -> int:
        """Bytes of offsets, steps and coarse nibbles: the int4 payload."""
        groups = math.prod(self.key_groups_shape) + math.prod(self.value_groups_shape)
        return 4 * groups + self.fine_bytes

    @property
    def fine_bytes(self) -> int:
        """Bytes of one plane of nibbles for keys and values."""
        return 2 * math.prod(self.nibbles_shape)


@dataclass(frozen=True, slots=True)
class GroupSections:
    """Views into one payload, in payload order; ``fine_*`` are empty for int4."""

    key_offsets: Words
    key_steps: Words
    value_offsets: Words
    value_steps: Words
    key_coarse: Octets
    value_coarse: Octets
    key_fine: Octets
    value_fine: Octets

    @classmethod
    def over(cls, payload: Octets, layout: GroupLayout) -> GroupSections:
        """Cuts ``payload`` (coarse, or coarse and fine) into views."""
        cursor = 0

        def words(shape: tuple[int, int, int]) -> Words:
            nonlocal cursor
            start, cursor = cursor, cursor + 2 * math.prod(shape)
            return payload[start:cursor].view("<u2").reshape(shape)

        def octets(shape: tuple[int, int, int]) -> Octets:
            nonlocal cursor
            start, cursor = cursor, cursor + math.prod(shape)
            return payload[start:cursor].reshape(shape)

        keys, values, nibbles = (
            layout.key_groups_shape,
            layout.value_groups_shape,
            layout.nibbles_shape,
        )
        has_fine = payload.size > layout.coarse_bytes
        fine = nibbles if has_fine else (nibbles[0], 0, nibbles[2])
        return cls(
            key_offsets=words(keys),
            key_steps=words(keys),
            value_offsets=words(values),
            value_steps=words(values),
            key_coarse=octets(nibbles),
            value_coarse=octets(nibbles),
            key_fine=octets(fine),
            value_fine=octets(fine),
        )

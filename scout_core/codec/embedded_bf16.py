"""Codec ``embedded_bf16``: the ``int8_groups`` payload, then the residual to the exact cache.

Owns the joint of the two and the *ladder*: an ``int4_groups`` payload begins an ``int8_groups``
one, which begins an ``embedded_bf16`` one. Whoever holds a lower payload therefore needs only the
rest of the higher one, and has then exactly what direct coding would have sent. It costs bits: on
the bundled model's caches 11.4 an element, where ``lossless_bf16``, which starts from nothing,
takes 10.8 in blocks of 32 positions and 10.5 in blocks of 256. So both exist: ``lossless_bf16`` for
who knows at once that it will be exact, this for who adds exactness to what is there.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch

from scout_core.codec.base import (
    CodecId,
    KvCodec,
    check_positions,
    checked_kv,
    geometry_of,
)
from scout_core.codec.group_layout import GroupLayout
from scout_core.codec.groups import INT4_GROUPS, INT8_GROUPS
from scout_core.codec.residual import residual_of, restore
from scout_core.errors import CodecError
from scout_core.geometry import KvGeometry

EXPECTED_RESIDUAL_BITS: Final = 2.45
"""Per element, for size estimates: measured on the bundled model's caches."""


class EmbeddedBf16Codec:
    """Bit-exact, in two parts of which the first is a cache by itself."""

    name = "embedded_bf16"
    codec_id = CodecId.EMBEDDED_BF16
    is_fixed_rate = False

    def encode(self, kv: torch.Tensor) -> bytes:
        """See ``KvCodec.encode``; also refuses a range beyond bf16 in a group."""
        exact = checked_kv(kv)
        payload = INT8_GROUPS.encode(exact)
        layout = GroupLayout(geometry_of(exact), exact.shape[3])
        bits = exact.view(torch.int16).numpy().view(np.uint16)
        return payload + residual_of(bits, np.frombuffer(payload, dtype=np.uint8), layout)

    def decode(
        self, payload: bytes | memoryview, geometry: KvGeometry, positions: int
    ) -> torch.Tensor:
        """See ``KvCodec.decode``."""
        layout = GroupLayout(geometry, positions)
        split = INT8_GROUPS.encoded_bytes(geometry, positions)
        if len(payload) < split:
            raise CodecError(f"{self.name}: payload too short for {positions} positions.")
        octets = np.frombuffer(payload, dtype=np.uint8)
        kv = torch.empty(geometry.shape(positions), dtype=torch.bfloat16)
        bits = kv.view(torch.int16).numpy().view(np.uint16)
        restore(octets[:split], octets[split:], layout, bits)
        return kv

    def encoded_bytes(self, geometry: KvGeometry, positions: int) -> int:
        """See ``KvCodec.encoded_bytes``; an expectation."""
        check_positions(positions)
        elements = geometry.elements_per_token * positions
        expected = round(elements * EXPECTED_RESIDUAL_BITS / 8)
        return INT8_GROUPS.encoded_bytes(geometry, positions) + expected


EMBEDDED_BF16: Final = EmbeddedBf16Codec()
LADDER: Final[tuple[KvCodec, ...]] = (INT4_GROUPS, INT8_GROUPS, EMBEDDED_BF16)
"""Each payload is the beginning of the next one's, for the same cache."""


def is_above(higher: int, lower: int) -> bool:
    """Whether a payload of the codec ``higher`` begins with one of the codec ``lower``."""
    ids = [int(codec.codec_id) for codec in LADDER]
    return higher in ids and lower in ids and ids.index(higher) > ids.index(lower)


def is_refinable(codec_id: int) -> bool:
    """Whether a payload of this codec is the beginning of a higher one."""
    return codec_id in [int(codec.codec_id) for codec in LADDER[:-1]]


def refinement_bytes(lower: KvCodec, higher: KvCodec, geometry: KvGeometry, positions: int) -> int:
    """Bytes from one payload to the other: exact up to ``int8_groups``, else an expectation."""
    return higher.encoded_bytes(geometry, positions) - lower.encoded_bytes(geometry, positions)


def refinement(kv: torch.Tensor, lower: KvCodec, higher: KvCodec) -> bytes:
    """What follows the ``lower`` payload of a cache in its ``higher`` one.

    Args:
        kv: as for ``KvCodec.encode``; the very cache that the lower payload was made from.

    Raises:
        CodecError: the codecs do not lie on the ladder in this order, or see ``KvCodec.encode``.
    """
    if not is_above(int(higher.codec_id), int(lower.codec_id)):
        raise CodecError(f"{higher.name} does not begin with {lower.name}; send it whole.")
    return higher.encode(kv)[lower.encoded_bytes(geometry_of(kv), kv.shape[3]) :]

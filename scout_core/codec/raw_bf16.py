"""Codec ``raw_bf16``: the cache as it is, two little-endian bytes an element, bit-exact."""

from __future__ import annotations

import torch

from scout_core.codec.base import (
    CodecId,
    check_payload_bytes,
    check_positions,
    checked_kv,
    not_finite,
)
from scout_core.codec.finite import is_finite
from scout_core.geometry import KvGeometry


class RawBf16Codec:
    """Elements in layout order; both signed zeros and subnormals survive."""

    name = "raw_bf16"
    codec_id = CodecId.RAW_BF16
    is_fixed_rate = True

    def encode(self, kv: torch.Tensor) -> bytes:
        """See ``KvCodec.encode``."""
        exact = checked_kv(kv)
        if not is_finite(exact):
            raise not_finite(self.name)
        return exact.view(torch.uint8).numpy().tobytes()

    def decode(
        self, payload: bytes | memoryview, geometry: KvGeometry, positions: int
    ) -> torch.Tensor:
        """See ``KvCodec.decode``."""
        check_payload_bytes(self, len(payload), geometry, positions)
        kv = torch.frombuffer(bytearray(payload), dtype=torch.bfloat16)
        if not is_finite(kv):
            raise not_finite(self.name)
        return kv.view(geometry.shape(positions))

    def encoded_bytes(self, geometry: KvGeometry, positions: int) -> int:
        """See ``KvCodec.encoded_bytes``; exact."""
        check_positions(positions)
        return geometry.bf16_bytes(positions)

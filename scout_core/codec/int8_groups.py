"""Codec ``int8_groups``: group quantisation, the int4 payload, then the fine nibbles."""

from __future__ import annotations

import torch

from scout_core.codec.base import CodecId, check_payload_bytes, checked_kv
from scout_core.codec.group_layout import GroupLayout
from scout_core.codec.groups import decode_groups, encode_groups
from scout_core.geometry import KvGeometry


class Int8GroupsCodec:
    """About 9 bits an element for long blocks; README.md gives the byte format."""

    name = "int8_groups"
    codec_id = CodecId.INT8_GROUPS
    is_fixed_rate = True

    def encode(self, kv: torch.Tensor) -> bytes:
        """See ``KvCodec.encode``."""
        return encode_groups(checked_kv(kv), with_fine=True, name=self.name)

    def decode(
        self, payload: bytes | memoryview, geometry: KvGeometry, positions: int
    ) -> torch.Tensor:
        """See ``KvCodec.decode``."""
        check_payload_bytes(self, len(payload), geometry, positions)
        return decode_groups(payload, geometry, positions, name=self.name)

    def encoded_bytes(self, geometry: KvGeometry, positions: int) -> int:
        """See ``KvCodec.encoded_bytes``; exact."""
        layout = GroupLayout(geometry, positions)
        return layout.coarse_bytes + layout.fine_bytes

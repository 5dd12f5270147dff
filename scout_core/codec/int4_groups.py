"""Codec ``int4_groups``: group quantisation (see ``group_layout``), coarse nibbles only."""

from __future__ import annotations

import torch

from scout_core.codec.base import CodecId, check_payload_bytes, checked_kv
from scout_core.codec.group_layout import GroupLayout
from scout_core.codec.groups import decode_groups, encode_groups
from scout_core.geometry import KvGeometry


class Int4GroupsCodec:
    """About 5 bits an element for long blocks; README.md gives the byte format."""

    name = "int4_groups"
    codec_id = CodecId.INT4_GROUPS
    is_fixed_rate = True

    def encode(self, kv: torch.Tensor) -> bytes:
        """See ``KvCodec.encode``."""
        return encode_groups(checked_kv(kv), with_fine=False, name=self.name)

    def decode(
        self, payload: bytes | memoryview, geometry: KvGeometry, positions: int
    ) -> torch.Tensor:
        """See ``KvCodec.decode``."""
        check_payload_bytes(self, len(payload), geometry, positions)
        return decode_groups(payload, geometry, positions, name=self.name)

    def encoded_bytes(self, geometry: KvGeometry, positions: int) -> int:
        """See ``KvCodec.encoded_bytes``; exact."""
        layout = GroupLayout(geometry, positions)
        return layout.coarse_bytes

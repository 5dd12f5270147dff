"""How much of a payload's KV can be refined."""

from __future__ import annotations

from scout_core.codec.base import CodecId
from scout_core.codec.refinable import RefinableBound
from scout_core.geometry import KvGeometry
from scout_core.protocol.blocks import REFINABLE_BYTES

GEOMETRY = KvGeometry(layers=64, kv_heads=8, head_dim=256)
WHOLE = REFINABLE_BYTES // GEOMETRY.bf16_bytes(1)
INT4, INT8 = int(CodecId.INT4_GROUPS), int(CodecId.INT8_GROUPS)


def test_blocks_are_admitted_up_to_the_last_byte() -> None:
    bound = RefinableBound(GEOMETRY)
    assert bound.admit(INT4, WHOLE - 1)
    assert not bound.admit(INT8, 2)
    assert bound.admit(INT8, 1)
    assert bound.covered_bytes == REFINABLE_BYTES
    assert not bound.admit(INT8, 1)


def test_only_what_begins_a_higher_payload_is_counted() -> None:
    bound = RefinableBound(GEOMETRY)
    for codec_id in set(map(int, CodecId)) - {INT4, INT8}:
        assert not bound.admit(codec_id, 1)
    assert bound.covered_bytes == 0

"""A payload of the transform codec byte by byte: what version 4 wrote, later versions read."""

from __future__ import annotations

import numpy as np
import torch

from scout_core.codec.rans import STATE_BYTES, TOTAL
from scout_core.codec.transform import TransformCodec
from scout_core.codec.transform_basis import ALPHABET, CLASSES, TransformBasis
from scout_core.geometry import KvGeometry
from scout_core.modes import ModelFingerprint

GEOMETRY = KvGeometry(layers=1, kv_heads=1, head_dim=4)
POSITIONS = (4, 5, 6)
BASIS = TransformBasis(
    fingerprint=ModelFingerprint("known"),
    geometry=GEOMETRY,
    theta=10_000.0,
    finest_step=0.25,
    int4_level=4,
    graded_level=8,
    integers=(127 * torch.eye(4, dtype=torch.int8)).expand(2, 1, 4, 4).contiguous(),
    scales=torch.full((2, 1, 4), 1 / 127),
    means=torch.zeros(2, 1, 4),
    deviations=torch.tensor([4.0, 2.0, 1.0, 0.01]).expand(2, 1, 4).contiguous(),
    sinks=torch.zeros(2, 4, 1, 4),
    frequencies=np.full((CLASSES, ALPHABET), TOTAL // ALPHABET, dtype=np.uint16),
    shrinkage=torch.zeros(CLASSES),
)
"""Identity, three of four coefficients sent, all symbols equally likely."""
VALUES = ((3.1, -1.2, 0.4, 0.0), (70.0, 0.0, -0.6, 0.0), (-2.0, 1.7, 0.1, 0.0))
QUANTISED = ((3.0, -1.0, 0.5, 0.0), (70.0, 0.0, -0.5, 0.0), (-2.0, 1.5, 0.0, 0.0))
"""At a step of a half."""
KNOWN = bytes.fromhex(
    "0400000000a501aad72a0000002e00000000000000f0f70701f0f70701f0f7070100000100000001"
    "00000001000000010000000100f007f007f007010000008c00000050d80701f0ff0701b027080100"
    "000100000001000000010000000100000001000008e007f007"
)


GRADES = (0, 2, -4)
"""Steps of a half, 0.71 and a quarter."""
GRADED_QUANTISED = (
    (3.0, -1.0, 0.5, 0.0),
    (99 * 2**-0.5, 0.0, -(2**-0.5), 0.0),
    (-2.0, 1.75, 0.0, 0.0),
)
KNOWN_GRADED = bytes.fromhex(
    "8400000000a501aad7a8042c0000002c00000000000000f7f7070100000100000001000000010000"
    "000100000001000000010000000100f7f7f7f7f0f7f0070000000078570801000001000000010000"
    "00010000000100000001000000010000000100276ed8f7f007e007"
)


def cache() -> torch.Tensor:
    """Keys of zeros, so that no angle is rounded; values as above."""
    kv = torch.zeros(GEOMETRY.shape(len(POSITIONS)))
    kv[0, 1, 0] = torch.tensor(VALUES)
    return kv.to(torch.bfloat16)


def test_the_known_cache_has_the_known_bytes() -> None:
    assert TransformCodec.at(BASIS, 4, POSITIONS).encode(cache()) == KNOWN


def test_the_known_bytes_decode_to_the_quantised_cache() -> None:
    decoded = TransformCodec.at(BASIS, 4, POSITIONS).decode(KNOWN, GEOMETRY, len(POSITIONS))
    assert torch.equal(decoded[0, 1, 0].float(), torch.tensor(QUANTISED).bfloat16().float())
    assert not decoded[0, 0].any()


def test_the_known_grades_have_the_known_bytes_and_decode_without_being_given() -> None:
    assert TransformCodec.at(BASIS, 4, POSITIONS, GRADES).encode(cache()) == KNOWN_GRADED
    decoded = TransformCodec.at(BASIS, 4, POSITIONS).decode(KNOWN_GRADED, GEOMETRY, len(POSITIONS))
    assert torch.equal(decoded[0, 1, 0].float(), torch.tensor(GRADED_QUANTISED).bfloat16().float())
    assert not decoded[0, 0].any()


def test_the_known_bytes_are_laid_out_as_documented() -> None:
    assert KNOWN[0] == 4
    assert KNOWN[1:5] == bytes(4)  # no row equals a calibrated one: positions begin at 4
    assert KNOWN[5:9] == BASIS.tag == bytes.fromhex(BASIS.digest)[:4]
    sizes = [int.from_bytes(KNOWN[at : at + 4], "little") for at in (9, 13)]
    assert len(KNOWN) == 17 + sum(sizes)
    values = KNOWN[17 + sizes[0] :]
    assert int.from_bytes(values[:4], "little") == 1  # escape: 70 is 140 steps
    assert int.from_bytes(values[4:8], "little", signed=True) == 140
    assert len(values) >= 8 + STATE_BYTES


def test_grades_follow_the_head_a_nibble_each() -> None:
    assert KNOWN_GRADED[0] == 0x80 | 4
    assert KNOWN_GRADED[1:9] == KNOWN[1:9]
    assert KNOWN_GRADED[9:11] == bytes((8 | 10 << 4, 4))  # 8 more than each grade
    sizes = [int.from_bytes(KNOWN_GRADED[at : at + 4], "little") for at in (11, 15)]
    assert len(KNOWN_GRADED) == 19 + sum(sizes)

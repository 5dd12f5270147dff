"""The lossless codec's payload against its definition in numpy and plain Python."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import torch

from scout_core.codec.lossless_bf16 import LosslessBf16Codec
from scout_core.codec.rans import normalised
from tests.unit.codec.entropy_definition import defined_stream


def defined_payload(words: np.ndarray) -> bytes:
    """For bits ``[layers, 2, kv_heads, positions, head_dim]``."""
    layers, positions = words.shape[0], words.shape[3]
    exponents = (words >> 7 & 0xFF).transpose(0, 1, 2, 4, 3).reshape(2 * layers, -1, positions)
    exponents = exponents.astype(np.uint8)
    fractions = (words >> 8 & 0x80 | words & 0x7F).astype(np.uint8)
    doubled = (4 * exponents.sum(axis=2, dtype=np.int64) + positions) // (2 * positions)
    labels, classes = np.unique(doubled, return_inverse=True)
    classes = classes.reshape(doubled.shape).astype(np.uint8)
    tables = np.stack(
        [
            normalised(np.bincount(exponents[classes == label].reshape(-1), minlength=256))
            for label in range(labels.size)
        ]
    )
    parts = [bytes([labels.size])]
    for row in tables:
        first, last = np.flatnonzero(row)[[0, -1]].tolist()
        parts.append(bytes([first, last - first]) + row[first : last + 1].astype("<u2").tobytes())
    parts.append(classes.tobytes())
    for plane in range(2 * layers):
        stream = defined_stream(exponents[plane], classes[plane], tables)
        parts.append(struct.pack("<I", len(stream)) + stream)
    return b"".join((*parts, fractions.tobytes()))


@pytest.mark.parametrize(("positions", "head_dim"), [(1, 2), (9, 8), (33, 64)])
def test_the_payload_is_the_defined_one_bit_for_bit(positions: int, head_dim: int) -> None:
    generator = torch.Generator().manual_seed(positions)
    kv = torch.randn(2, 2, 3, positions, head_dim, generator=generator)
    kv = (kv * torch.logspace(-3, 3, head_dim)).to(torch.bfloat16)
    words = kv.view(torch.int16).numpy().view(np.uint16)
    assert LosslessBf16Codec().encode(kv) == defined_payload(words)

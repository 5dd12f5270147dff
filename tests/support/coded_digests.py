"""Digests of what every KV codec writes and reads of some small caches: ``python -m`` prints them.

Made twice, with compiled loops and (``NUMBA_DISABLE_JIT=1``) with the same loops run by the Python
interpreter, they tell whether a host's compiler keeps the formats.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import numpy as np
import torch

from scout_core.codec.base import KvCodec, geometry_of
from scout_core.codec.registry import CODECS
from scout_core.codec.transform import TransformCodec
from tests.support.synthetic_caches import synthetic_basis, synthetic_cache

SHAPES = ((5, 64), (34, 6), (1, 128))
"""Positions and head_dim: compiled groups and reference ones, one and two position groups."""
TRANSFORM_POSITIONS = 6
TRANSFORM_LEVELS = (6, 56)
GRADES = (-6, 0, 3, -6, 7, 0)


def digests() -> dict[str, str]:
    """By codec and cache: of payload and decoded cache."""
    found: dict[str, str] = {}
    for positions, head_dim in SHAPES:
        kv = integer_cache(positions, head_dim)
        for codec in CODECS:
            found[f"{codec.name} {positions}x{head_dim}"] = _digest(codec, kv)
    kv = synthetic_cache(range(TRANSFORM_POSITIONS), seed=1)
    for codec in _transforms():
        found[f"{codec.name} {codec.level}"] = _digest(codec, kv)
    graded = TransformCodec.at(synthetic_basis(), 6, range(TRANSFORM_POSITIONS), GRADES)
    found["transform 6 graded"] = _digest(graded, kv)
    return found


def integer_cache(positions: int, head_dim: int) -> torch.Tensor:
    """``[2, 2, 1, positions, head_dim]`` made of integers, so that every host makes the same."""
    source = np.random.default_rng(positions)
    shape = (2, 2, 1, positions, head_dim)
    numbers = source.integers(-(1 << 12), 1 << 12, shape) + source.integers(-8192, 8192, head_dim)
    scales = np.exp2(source.integers(-20, 4, head_dim))
    return torch.from_numpy((numbers * scales).astype(np.float32)).bfloat16()


def _transforms() -> Iterator[TransformCodec]:
    for level in TRANSFORM_LEVELS:
        yield TransformCodec.at(synthetic_basis(), level, range(TRANSFORM_POSITIONS))


def _digest(codec: KvCodec, kv: torch.Tensor) -> str:
    payload = codec.encode(kv)
    decoded = codec.decode(payload, geometry_of(kv), kv.shape[3])
    both = hashlib.sha256(payload)
    both.update(decoded.view(torch.int16).numpy().astype("<i2").tobytes())
    return both.hexdigest()[:16]


if __name__ == "__main__":
    print(json.dumps(digests()))

"""Small caches whose layers are correlated, and a transform basis fitted to them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch

from scout_core.codec.rotary import Rotation
from scout_core.codec.transform_basis import TransformBasis
from scout_core.evaluation.codec_fit import fit_basis
from scout_core.evaluation.codec_statistics import CacheStatistics, grouped_rows
from scout_core.geometry import KvGeometry
from scout_core.modes import ModelFingerprint

GEOMETRY = KvGeometry(layers=4, kv_heads=2, head_dim=8)
THETA = 10_000.0
GROUPS = 2
SINKS = 4
CAUSES = 12
"""Hidden causes that all elements of a position depend on."""


def synthetic_cache(positions: Sequence[int], seed: int) -> torch.Tensor:
    """bf16 ``[4, 2, 2, positions, 8]``: a few causes and noise, keys rotated to ``positions``."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(CAUSES, 4 * 2 * 2 * 8, generator=torch.Generator().manual_seed(99))
    causes = torch.randn(len(positions), CAUSES, generator=generator)
    noise = 0.05 * torch.randn(len(positions), 4 * 2 * 2 * 8, generator=generator)
    rows = (causes @ mixing + noise + 1.0).reshape(len(positions), 4, 2, 2, 8)
    kv = rows.permute(1, 2, 3, 0, 4).contiguous()
    kv[:, 0] = Rotation.at(torch.tensor(positions), 8, THETA).applied(kv[:, 0])
    return kv.to(torch.bfloat16)


@cache
def synthetic_basis() -> TransformBasis:
    """Fitted to a dozen such caches; every element matters equally but for sampling."""
    statistics = CacheStatistics(GEOMETRY, GROUPS, SINKS)
    samples: list[torch.Tensor] = []
    for seed in range(12):
        rotation = Rotation.at(torch.arange(100), 8, THETA)
        rows = grouped_rows(synthetic_cache(range(100), seed), GROUPS, rotation)
        statistics.add_rows(rows)
        generator = torch.Generator().manual_seed(1000 + seed)
        statistics.add_gradients(torch.randn(rows.shape, generator=generator), 0.01)
        samples.append(rows)
    return fit_basis(ModelFingerprint("synthetic"), statistics, THETA, samples)

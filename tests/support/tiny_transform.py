"""A transform basis for a tiny model's caches, fitted on the spot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

import torch

from scout_core.codec.rotary import Rotation
from scout_core.codec.transform_basis import TransformBasis
from scout_core.engine import Engine
from scout_core.evaluation.codec_fit import fit_basis
from scout_core.evaluation.codec_statistics import CacheStatistics, grouped_rows
from tests.support.tiny_models import random_tokens

THETA: Final = 10_000.0
"""Of every tiny family but the one with sliding windows."""
TEXTS: Final = 8
TEXT_TOKENS: Final = 120
FINE_LEVEL: Final = 6
GRADED_LEVEL: Final = 8
"""Random weights answer every difference with another token: near enough to exact."""


def tiny_basis(engine: Engine) -> TransformBasis:
    """Fitted to caches of random tokens; every element matters equally but for sampling."""
    statistics = CacheStatistics(engine.geometry, 1, len(engine.prompt.head_tokens))
    samples: list[torch.Tensor] = []
    rotation = Rotation.at(torch.arange(TEXT_TOKENS), engine.geometry.head_dim, THETA)
    for seed in range(TEXTS):
        cache = engine.new_cache(TEXT_TOKENS)
        head = engine.prompt.head_tokens
        engine.prefill(cache, (*head, *random_tokens(engine, TEXT_TOKENS - len(head), seed)))
        rows = grouped_rows(cache.tensor(0, TEXT_TOKENS), 1, rotation)
        statistics.add_rows(rows)
        generator = torch.Generator().manual_seed(seed)
        statistics.add_gradients(torch.randn(rows.shape, generator=generator), 0.01)
        samples.append(rows)
    basis = fit_basis(engine.fingerprint, statistics, THETA, samples)
    return replace(basis, int4_level=FINE_LEVEL, graded_level=GRADED_LEVEL)


def save_tiny_basis(engine: Engine, path: Path) -> Path:
    """The same as a file."""
    tiny_basis(engine).save(path)
    return path

"""Runs a model over texts and collects what a transform basis is fitted from.

Owns the passes: one without gradients for the cache, then for each sampled continuation one
forward and backward pass of the tail alone, with the cache as the leaf. Knows no files.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import torch

from scout_core.codec.rotary import Rotation
from scout_core.codec.transform_basis import TransformBasis
from scout_core.evaluation.codec_fit import fit_basis
from scout_core.evaluation.codec_probe import CacheProbe, ProbeText
from scout_core.evaluation.codec_statistics import CacheStatistics, grouped_rows

LAYERS_PER_GROUP: Final = 5
"""The widest group whose basis stays below 16 MB for the bundled model (11 MB)."""
SAMPLED_CONTINUATIONS: Final = 2
COUNTED_TEXTS: Final = 12
"""Texts whose rows train the entropy models (kept in memory in the meantime)."""

OnProgress = Callable[[int, int], None]


def calibrate_basis(
    probe: CacheProbe, texts: Sequence[ProbeText], seed: int, on_progress: OnProgress
) -> TransformBasis:
    """Fits a transform basis for a model from texts of the kind it will see.

    Every text weighs the same in the importance, however long it is. Sampled continuations are
    drawn from torch's global generator, seeded here.
    """
    geometry = probe.geometry
    statistics = CacheStatistics(geometry, geometry.layers // LAYERS_PER_GROUP)
    torch.manual_seed(seed)
    source = random.Random(seed)  # noqa: S311 - a reproducible choice, no secret
    counted = set(source.sample(range(len(texts)), min(COUNTED_TEXTS, len(texts))))
    samples: list[torch.Tensor] = []
    for index, text in enumerate(texts):
        rotation = Rotation.at(torch.arange(len(text.prefix)), geometry.head_dim, probe.theta)
        kv, holder = probe.prefilled(text.prefix)
        rows = grouped_rows(kv, statistics.groups, rotation)
        statistics.add_rows(rows)
        if index in counted:
            samples.append(rows)
        for gradient in _gradients(probe, holder, kv, text.tail):
            gradients = grouped_rows(gradient, statistics.groups, rotation)
            weight = 1 / (SAMPLED_CONTINUATIONS * len(texts) * len(text.tail))
            statistics.add_gradients(gradients, weight)
        on_progress(index + 1, len(texts))
    return fit_basis(probe.fingerprint, statistics, probe.theta, samples)


def _gradients(
    probe: CacheProbe, holder: Any, kv: torch.Tensor, tail: Sequence[int]
) -> Iterator[torch.Tensor]:
    """Gradients in the shape of ``kv``, one per continuation sampled from the model."""
    for _ in range(SAMPLED_CONTINUATIONS):
        leaf = kv.float().requires_grad_()
        likelihoods = probe.log_likelihoods(holder, leaf, tail)
        drawn = torch.multinomial(likelihoods.detach().exp(), 1)
        (gradient,) = torch.autograd.grad(likelihoods.gather(1, drawn).sum(), leaf)
        yield gradient

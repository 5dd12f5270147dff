"""Runs a model over texts and collects what a transform basis is fitted from.

Owns the passes: one without gradients for the cache, then for each sampled continuation one
forward and backward pass of the tail alone, with the cache as the leaf. Knows no files.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from scout_core.codec.rotary import Rotation
from scout_core.codec.transform_basis import TransformBasis
from scout_core.engine.loading import LoadedModel
from scout_core.evaluation.codec_fit import fit_basis
from scout_core.evaluation.codec_statistics import CacheStatistics, grouped_rows
from scout_core.geometry import KvGeometry

LAYERS_PER_GROUP: Final = 5
"""On the bundled model, groups of 5 save a quarter of the bits of single layers at equal KL."""
SAMPLED_CONTINUATIONS: Final = 2
COUNTED_TEXTS: Final = 12
"""Texts whose rows train the entropy models (kept in memory in the meantime)."""

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class CalibrationText:
    """Token ids of a prefix (whose cache is coded) and of what follows it."""

    prefix: tuple[int, ...]
    tail: tuple[int, ...]


def calibrate_basis(
    model: LoadedModel, texts: Sequence[CalibrationText], seed: int, on_progress: OnProgress
) -> TransformBasis:
    """Fits a transform basis for a model from texts of the kind it will see.

    Every text weighs the same in the importance, however long it is. Sampled continuations are
    drawn from torch's global generator, seeded here.
    """
    config = model.config
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    geometry = KvGeometry(config.num_hidden_layers, config.num_key_value_heads, head_dim)
    theta = float(config.rope_parameters["rope_theta"])
    statistics = CacheStatistics(geometry, geometry.layers // LAYERS_PER_GROUP)
    torch.manual_seed(seed)
    counted = set(random.Random(seed).sample(range(len(texts)), min(COUNTED_TEXTS, len(texts))))  # noqa: S311
    samples: list[torch.Tensor] = []
    for index, text in enumerate(texts):
        rotation = Rotation.at(torch.arange(len(text.prefix)), head_dim, theta)
        kv, cache = _prefilled(model, text.prefix)
        rows = grouped_rows(kv, statistics.groups, rotation)
        statistics.add_rows(rows)
        if index in counted:
            samples.append(rows)
        for gradient in _gradients(model, cache, kv, text.tail):
            gradients = grouped_rows(gradient, statistics.groups, rotation)
            weight = 1 / (SAMPLED_CONTINUATIONS * len(texts) * len(text.tail))
            statistics.add_gradients(gradients, weight)
        on_progress(index + 1, len(texts))
    return fit_basis(statistics, theta, samples)


def _prefilled(model: LoadedModel, prefix: Sequence[int]) -> tuple[torch.Tensor, Any]:
    """The bf16 cache ``[layers, 2, kv_heads, positions, head_dim]`` and transformers' own."""
    with torch.no_grad():
        output = model.module(torch.tensor([prefix]), use_cache=True, logits_to_keep=1)
    layers = output.past_key_values.layers
    kv = torch.stack([torch.stack((layer.keys[0], layer.values[0])) for layer in layers])
    return kv.to(torch.bfloat16), output.past_key_values


def _gradients(
    model: LoadedModel, cache: Any, kv: torch.Tensor, tail: Sequence[int]
) -> Iterator[torch.Tensor]:
    """Gradients in the shape of ``kv``, one per continuation sampled from the model."""
    positions = torch.arange(kv.shape[3], kv.shape[3] + len(tail))[None]
    # what this release of transformers calls the cache
    parameters = inspect.signature(model.module.forward).parameters
    keyword = "cache" if "cache" in parameters else "past_key_values"
    for _ in range(SAMPLED_CONTINUATIONS):
        leaf = kv.to(model.dtype).requires_grad_()
        for layer, held in enumerate(cache.layers):
            held.keys, held.values = leaf[layer, 0][None], leaf[layer, 1][None]
        output = model.module(
            torch.tensor([tail]), position_ids=positions, use_cache=True, **{keyword: cache}
        )
        likelihoods = output.logits[0].float().log_softmax(dim=-1)
        drawn = torch.multinomial(likelihoods.detach().exp(), 1)
        (gradient,) = torch.autograd.grad(likelihoods.gather(1, drawn).sum(), leaf)
        yield gradient

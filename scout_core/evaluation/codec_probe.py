"""A model's cache in and out, and what the model says next with a given cache.

Owns the use of the model for codec studies and calibration: prefix in, cache out; cache and tail
in, log-likelihoods out, differentiable if the cache is. Knows no codec and no files.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from scout_core.engine.loading import LoadedModel
from scout_core.geometry import KvGeometry


@dataclass(frozen=True, slots=True)
class ProbeText:
    """Token ids of a prefix (whose cache is coded) and of what follows it."""

    prefix: tuple[int, ...]
    tail: tuple[int, ...]


class CacheProbe:
    """One model, prefilled once per text and then asked again with other caches."""

    def __init__(self, model: LoadedModel) -> None:
        config = model.config
        head_dim = getattr(config, "head_dim", None)
        # the engine's own attention expects the engine's passes; the probe runs the model plainly
        model.module.set_attn_implementation("sdpa")
        self._model = model
        self.fingerprint = model.fingerprint
        self.geometry = KvGeometry(
            config.num_hidden_layers,
            config.num_key_value_heads,
            head_dim or config.hidden_size // config.num_attention_heads,
        )
        self.theta = float(config.rope_parameters["rope_theta"])
        parameters = inspect.signature(model.module.forward).parameters
        # what this release of transformers calls the cache
        self._keyword = "cache" if "cache" in parameters else "past_key_values"

    def prefilled(self, prefix: Sequence[int]) -> tuple[torch.Tensor, Any]:
        """The cache as bf16 ``[layers, 2, kv_heads, positions, head_dim]``, and its holder."""
        with torch.no_grad():
            output = self._model.module(torch.tensor([prefix]), use_cache=True, logits_to_keep=1)
        holder = output.past_key_values
        kv = [torch.stack((layer.keys[0], layer.values[0])) for layer in holder.layers]
        return torch.stack(kv).to(torch.bfloat16), holder

    def log_likelihoods(self, holder: Any, kv: torch.Tensor, tail: Sequence[int]) -> torch.Tensor:
        """Of every token after each of ``tail``: float32 ``[tail, vocabulary]``.

        Args:
            holder: what ``prefilled`` returned; its content is replaced by ``kv``.
            kv: ``[layers, 2, kv_heads, positions, head_dim]``.
        """
        positions = torch.arange(kv.shape[3], kv.shape[3] + len(tail))[None]
        cache = kv.to(self._model.dtype)
        for layer, held in enumerate(holder.layers):
            held.keys, held.values = cache[layer, 0][None], cache[layer, 1][None]
        output = self._model.module(
            torch.tensor([tail]),
            position_ids=positions,
            use_cache=True,
            **{self._keyword: holder},
        )
        return output.logits[0].float().log_softmax(dim=-1)

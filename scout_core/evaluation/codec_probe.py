"""A model's cache in and out, and what the model says next with a given cache.

Owns the use of the model for codec studies and calibration: prefix in, cache out; cache and tail
in, log-likelihoods out, differentiable if the cache is. Knows no codec and no files.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from scout_core.engine.loading import LoadedModel
from scout_core.geometry import KvGeometry

OBSERVED_TOKENS: Final = 64
"""Last tokens of a context whose attention is measured; at most half of the context."""


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
        output = self._continued(holder, kv, tail)
        return output.logits[0].float().log_softmax(dim=-1)

    def attention(
        self, holder: Any, kv: torch.Tensor, prefix: Sequence[int]
    ) -> NDArray[np.float64]:
        """How much the end of a context looks at its positions: ``[positions]``.

        The squared attention that each position gets from the last ``OBSERVED_TOKENS`` tokens, mean
        over layers, heads and these tokens. Takes memory for these tokens' attention alone.

        Args:
            holder: what ``prefilled`` returned; its content is replaced.
            kv: the cache of the prefix.
        """
        start = len(prefix) - min(OBSERVED_TOKENS, len(prefix) // 2)
        if start == len(prefix):
            return np.zeros(len(prefix))
        module = self._model.module
        module.set_attn_implementation("eager")
        try:
            with torch.no_grad():
                output = self._continued(
                    holder, kv[:, :, :, :start], prefix[start:], output_attentions=True
                )
        finally:
            module.set_attn_implementation("sdpa")
        layers = [layer[0].double().square().mean(dim=(0, 1)) for layer in output.attentions]
        return torch.stack(layers).mean(dim=0).numpy()

    def _continued(self, holder: Any, kv: torch.Tensor, tail: Sequence[int], **options: Any) -> Any:
        """The model's output for a tail after a cache."""
        positions = torch.arange(kv.shape[3], kv.shape[3] + len(tail))[None]
        cache = kv.to(self._model.dtype)
        for layer, held in enumerate(holder.layers):
            held.keys, held.values = cache[layer, 0][None], cache[layer, 1][None]
        return self._model.module(
            torch.tensor([tail]),
            position_ids=positions,
            use_cache=True,
            **{self._keyword: holder},
            **options,
        )

"""A pair as the quality study uses it: both engines, and the cloud in the batched decoder.

Owns the loading and the reading of an engine's weights into the batched decoder. Knows no data.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from scout_core.engine import Engine
from scout_core.engine.options import EngineOptions
from scout_core.engine.scoring import ScoutScorer
from scout_core.engine.scouts import scorer_between
from scout_core.errors import UnsupportedModelError
from scout_core.evaluation.quality_answers import Model
from scout_core.evaluation.quality_decoder import (
    NORMS,
    PROJECTIONS,
    DecoderShape,
    DecoderWeights,
)
from scout_core.models.bundled import lexical_readout_file
from scout_core.models.profile import Profile
from scout_core.models.registry import BUNDLED_PREFIX
from scout_core.selection.head_weights import HeadWeights
from scout_core.selection.readout import Readout, load_readout

GEMMA = "gemma3_text"
BATCHED_FAMILIES = frozenset({"llama", "mistral", GEMMA})
"""Model types whose layers the batched decoder computes exactly."""
GEMMA_NORMS = {
    "input_layernorm": "input_layernorm",
    "pre_feedforward_layernorm": "post_attention_layernorm",
    "self_attn.q_norm": "self_attn.q_norm",
    "self_attn.k_norm": "self_attn.k_norm",
    "post_attention_layernorm": "attention_output_norm",
    "post_feedforward_layernorm": "mlp_output_norm",
}
"""Gemma's names of norms, and what the batched decoder calls them."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Both engines, the scout's scorer, the batched cloud and the cloud's calibrated heads."""

    cloud: Engine
    scout: Engine
    scorer: ScoutScorer
    model: Model
    heads: HeadWeights | None
    lexical: Readout | None = None
    """The baseline that reads words alone; there for the bundled scout."""

    @property
    def name(self) -> str:
        return f"{self.cloud.name} + {self.scout.name}"


def batched_model(engine: Engine) -> Model:
    """The engine's weights, shared, in the batched decoder.

    Raises:
        UnsupportedModelError: a family the decoder does not compute.
    """
    module = engine.module
    config: Any = module.config
    if config.model_type not in BATCHED_FAMILIES:
        known = ", ".join(sorted(BATCHED_FAMILIES))
        raise UnsupportedModelError(
            f"The quality study batches {known} models; {engine.name} is {config.model_type}.",
            model=engine.name,
        )
    state: dict[str, Tensor] = module.state_dict()
    count = int(config.num_hidden_layers)

    def stacked(name: str) -> tuple[Tensor, ...]:
        return tuple(state[f"model.layers.{index}.{name}.weight"] for index in range(count))

    layer = {name: stacked(name) for name in PROJECTIONS}
    final_norm = state["model.norm.weight"]
    if config.model_type == GEMMA:
        # Gemma stores a norm's weight less one.
        layer |= {
            name: tuple(1 + weight for weight in stacked(theirs))
            for theirs, name in GEMMA_NORMS.items()
        }
        final_norm = 1 + final_norm
        shape = _gemma_shape(engine, config)
    else:
        layer |= {name: stacked(name) for name in NORMS}
        rope: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
        shape = _plain_shape(engine, config, float(rope.get("rope_theta") or config.rope_theta))
    embedding = state["model.embed_tokens.weight"]
    output = state.get("lm_head.weight", embedding)
    weights = DecoderWeights(layer, embedding, output, final_norm)
    return Model(weights, shape, engine.stop_token_ids)


def _plain_shape(engine: Engine, config: Any, rope_theta: float) -> DecoderShape:
    return DecoderShape(
        layers=engine.layers,
        heads=engine.heads,
        kv_heads=engine.geometry.kv_heads,
        head_dim=engine.geometry.head_dim,
        rope_theta=rope_theta,
        norm_epsilon=float(config.rms_norm_eps),
    )


def _gemma_shape(engine: Engine, config: Any) -> DecoderShape:
    unusual = (config.attn_logit_softcapping, config.final_logit_softcapping) != (None, None)
    if unusual or int(config.query_pre_attn_scalar) != engine.geometry.head_dim:
        raise UnsupportedModelError(
            f"{engine.name} caps its logits or scales attention by another number than its head's "
            "size; the quality study does not compute that.",
            model=engine.name,
        )
    rope: dict[str, dict[str, Any]] = config.rope_parameters
    kinds: list[str] = config.layer_types
    return replace(
        _plain_shape(engine, config, float(rope["full_attention"]["rope_theta"])),
        embedding_scale=float(config.hidden_size) ** 0.5,
        gelu=True,
        local_layers=frozenset(i for i, kind in enumerate(kinds) if kind == "sliding_attention"),
        local_rope_theta=float(rope["sliding_attention"]["rope_theta"]),
        window=int(config.sliding_window),
    )


def load_pair(cloud: str, scout: str, profile: Profile | None) -> Pair:
    """Loads both models; heads come from ``profile``, which must be this pair's.

    Raises:
        UnknownModelError, UnsupportedModelError: as ``Engine.load``.
        ProfileError: the profile was made for other models.
    """
    loaded = Engine.load(EngineOptions(reference=cloud))
    scoring = Engine.load(EngineOptions(reference=scout))
    record = None
    cloud_heads = None
    if profile is not None:
        profile.require_for(loaded.fingerprint, scoring.fingerprint)
        record = profile.scout_head_weights
        cloud_heads = profile.cloud_head_weights
    scorer = scorer_between(scoring, loaded, record.read() if record else None)
    heads = cloud_heads.read() if cloud_heads else None
    lexical = None
    if scout.startswith(BUNDLED_PREFIX):
        lexical = load_readout(lexical_readout_file(), torch.device("cpu"))
    with torch.no_grad():
        return Pair(loaded, scoring, scorer, batched_model(loaded), heads, lexical)

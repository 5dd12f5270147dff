"""A pair as the quality study uses it: both engines, and the cloud in the batched decoder.

Owns the loading and the reading of an engine's weights into the batched decoder. Knows no data.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from scout_core.codec.bases import configured_basis
from scout_core.codec.transform_basis import TransformBasis
from scout_core.engine import Engine
from scout_core.engine.options import ComputeDtype, Device, EngineOptions
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
from scout_core.models.bundled import lexical_readout_file, readout_file
from scout_core.models.profile import Profile
from scout_core.models.registry import BUNDLED_PREFIX, bundled_model
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
class Scouting:
    """A scout in the batched decoder, and what reads its attention: readout, heads or neither."""

    model: Model
    readout: Readout | None
    heads: HeadWeights | None


@dataclass(frozen=True, slots=True)
class Hosting:
    """Where and how both models run (``EngineOptions``), and the transform that KV goes through."""

    device: Device = "auto"
    compute_dtype: ComputeDtype = "auto"
    threads: int | None = None
    transform: str = ""
    """As the daemons' setting: ``configured_basis``."""


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
    scouting: Scouting | None = None
    """None where the study cannot batch the scout: the scorer takes one question at a time."""
    basis: TransformBasis | None = None
    """What an edge with the cloud's model sends KV through; None: plain groups."""

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
    # A model cut to its first layers is a bare stack, without the prefix and the output head.
    prefix = "model." if "model.norm.weight" in state else ""

    def stacked(name: str) -> tuple[Tensor, ...]:
        return tuple(state[f"{prefix}layers.{index}.{name}.weight"] for index in range(count))

    layer = {name: stacked(name) for name in PROJECTIONS}
    final_norm = state[f"{prefix}norm.weight"]
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
    embedding = state[f"{prefix}embed_tokens.weight"]
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


def load_pair(
    cloud: str, scout: str, profile: Profile | None, hosting: Hosting | None = None
) -> Pair:
    """Loads both models; heads come from ``profile``, which must be this pair's.

    Raises:
        UnknownModelError, UnsupportedModelError: as ``Engine.load``.
        ProfileError: the profile or the transform basis was made for other models.
    """
    host = hosting or Hosting()
    loaded, scoring = (
        Engine.load(EngineOptions(name, host.compute_dtype, host.device, threads=host.threads))
        for name in (cloud, scout)
    )
    scout_heads = cloud_heads = None
    if profile is not None:
        profile.require_for(loaded.fingerprint, scoring.fingerprint)
        scout_record, cloud_record = profile.scout_head_weights, profile.cloud_head_weights
        scout_heads = scout_record.read() if scout_record else None
        cloud_heads = cloud_record.read() if cloud_record else None
    lexical = None
    if scout.startswith(BUNDLED_PREFIX):
        lexical = load_readout(lexical_readout_file(), torch.device("cpu"))
    with torch.no_grad():
        return Pair(
            cloud=loaded,
            scout=scoring,
            scorer=scorer_between(scoring, loaded, scout_heads),
            model=batched_model(loaded),
            heads=cloud_heads,
            lexical=lexical,
            scouting=_scouting(loaded, scoring, scout_heads),
            basis=configured_basis(host.transform, loaded.fingerprint),
        )


def _scouting(cloud: Engine, scout: Engine, heads: HeadWeights | None) -> Scouting | None:
    """The scout for batches, where both models cut text alike and the decoder knows its family."""
    alike = scout.tokenizer_fingerprint == cloud.tokenizer_fingerprint
    if not alike or scout.module.config.model_type not in BATCHED_FAMILIES:
        return None
    model, readout = batched_model(scout), None
    if scout.name.startswith(BUNDLED_PREFIX):
        path = readout_file(bundled_model(scout.name.removeprefix(BUNDLED_PREFIX)))
        readout = None if path is None else load_readout(path, model.device)
    return Scouting(model, readout, heads)

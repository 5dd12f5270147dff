"""A pair as the quality study uses it: both engines, and the cloud in the batched decoder.

Owns the loading and the reading of an engine's weights into the batched decoder. Knows no data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scout_core.engine import Engine
from scout_core.engine.options import EngineOptions
from scout_core.engine.scoring import ScoutScorer
from scout_core.engine.scouts import scorer_for
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

BATCHED_FAMILIES = frozenset({"llama", "mistral"})
"""Model types whose layers the batched decoder computes exactly."""


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
    layer = {
        name: tuple(state[f"model.layers.{index}.{name}.weight"] for index in range(count))
        for name in (*PROJECTIONS, *NORMS)
    }
    rope: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    heads = int(config.num_attention_heads)
    shape = DecoderShape(
        layers=count,
        heads=heads,
        kv_heads=int(config.num_key_value_heads),
        head_dim=int(getattr(config, "head_dim", None) or config.hidden_size // heads),
        rope_theta=float(rope.get("rope_theta") or config.rope_theta),
        norm_epsilon=float(config.rms_norm_eps),
    )
    embedding = state["model.embed_tokens.weight"]
    weights = DecoderWeights(
        layer, embedding, state.get("lm_head.weight", embedding), state["model.norm.weight"]
    )
    return Model(weights, shape, engine.stop_token_ids)


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
    scorer = scorer_for(scoring, record.read() if record else None)
    heads = cloud_heads.read() if cloud_heads else None
    lexical = None
    if scout.startswith(BUNDLED_PREFIX):
        lexical = load_readout(lexical_readout_file(), torch.device("cpu"))
    with torch.no_grad():
        return Pair(loaded, scoring, scorer, batched_model(loaded), heads, lexical)

"""Models and stage costs as they travel in registration, status and accounting.

Plain values on one side, ``scout.v1`` messages on the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from scout.v1 import types_pb2

from scout_core.geometry import KvGeometry
from scout_core.modes import ModelFingerprint


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """What one end tells the other about a model it holds."""

    name: str
    fingerprint: ModelFingerprint
    tokenizer_fingerprint: str
    geometry: KvGeometry
    vocabulary: int
    context_limit_tokens: int
    compute_dtype: str
    transform: str = ""
    """Digest of the transform basis held for it; empty: none."""


@dataclass(frozen=True, slots=True)
class StageCostFigure:
    """Seconds of one stage: ``base_s + per_token_s · tokens``, from ``samples`` measurements."""

    stage: str
    base_s: float
    per_token_s: float
    samples: int


def model_message(model: ModelDescription) -> types_pb2.Model:
    return types_pb2.Model(
        name=model.name,
        fingerprint=model.fingerprint,
        tokenizer_fingerprint=model.tokenizer_fingerprint,
        layers=model.geometry.layers,
        kv_heads=model.geometry.kv_heads,
        head_dim=model.geometry.head_dim,
        vocabulary=model.vocabulary,
        context_limit_tokens=model.context_limit_tokens,
        compute_dtype=model.compute_dtype,
        transform=model.transform,
    )


def model_from_message(message: types_pb2.Model) -> ModelDescription:
    """Raises CodecError when the geometry is impossible."""
    return ModelDescription(
        name=message.name,
        fingerprint=ModelFingerprint(message.fingerprint),
        tokenizer_fingerprint=message.tokenizer_fingerprint,
        geometry=KvGeometry(message.layers, message.kv_heads, message.head_dim),
        vocabulary=message.vocabulary,
        context_limit_tokens=message.context_limit_tokens,
        compute_dtype=message.compute_dtype,
        transform=message.transform,
    )


def cost_messages(costs: Iterable[StageCostFigure]) -> list[types_pb2.StageCost]:
    return [
        types_pb2.StageCost(
            stage=cost.stage,
            base_s=cost.base_s,
            per_token_s=cost.per_token_s,
            samples=cost.samples,
        )
        for cost in costs
    ]


def costs_from_messages(messages: Iterable[types_pb2.StageCost]) -> tuple[StageCostFigure, ...]:
    return tuple(StageCostFigure(m.stage, m.base_s, m.per_token_s, m.samples) for m in messages)

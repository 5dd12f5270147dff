"""The calibrated linear model over attention heads, and its form in a profile file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, cast

import torch

from scout_core.errors import ProfileError
from scout_core.selection.lexical import FEATURES

DEFAULT_POOL_WIDTH = 5
"""Measured on question answering with SmolLM2-135M (DESIGN §2)."""


class PoolKind(Enum):
    """How neighbouring scores are joined."""

    AVERAGE = "average"
    MAXIMUM = "maximum"


@dataclass(frozen=True, slots=True)
class HeadWeights:
    """Score of a position = bias + sum over (layer, head) of weight x standardised log-attention.

    Args:
        weights: float32 ``[layers, heads]``.
        pool_width: positions pooled, centred; odd.
        lexical: float32, one weight per column of ``lexical.FEATURES``, for word overlap beside
            the heads; None for heads alone.

    Raises:
        ProfileError: shapes or values that make no sense.
    """

    weights: torch.Tensor
    bias: float = 0.0
    pool_width: int = DEFAULT_POOL_WIDTH
    pool_kind: PoolKind = PoolKind.AVERAGE
    lexical: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if self.lexical is not None and (
            tuple(self.lexical.shape) != (len(FEATURES),)
            or not bool(torch.isfinite(self.lexical).all())
        ):
            raise ProfileError(f"Lexical weights are {len(FEATURES)} finite numbers, or absent.")
        if self.weights.ndim != 2 or self.weights.numel() == 0:
            raise ProfileError("Head weights need one row of numbers per layer.")
        if not bool(torch.isfinite(self.weights).all()) or not math.isfinite(self.bias):
            raise ProfileError("Head weights must be finite numbers.")
        if self.pool_width < 1 or self.pool_width % 2 == 0:
            raise ProfileError(f"pool_width must be odd and positive, got {self.pool_width}.")

    @property
    def layers(self) -> int:
        return self.weights.shape[0]

    @property
    def heads(self) -> int:
        return self.weights.shape[1]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        lexical = {} if self.lexical is None else {"lexical": self.lexical.tolist()}
        return {
            **lexical,
            "layers": self.layers,
            "heads": self.heads,
            "weights": self.weights.tolist(),
            "bias": self.bias,
            "pool_width": self.pool_width,
            "pool_kind": self.pool_kind.value,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> HeadWeights:
        """Reads ``to_dict``'s form.

        Raises:
            ProfileError: a key is missing, or a value has the wrong type or shape.
        """
        try:
            weights = torch.tensor(cast("list[list[float]]", values["weights"]))
            lexical = torch.tensor(cast("list[float]", values.get("lexical") or ()))
            stated = (int(values["layers"]), int(values["heads"]))
            read = cls(
                weights.to(torch.float32),
                float(values["bias"]),
                int(values["pool_width"]),
                PoolKind(values["pool_kind"]),
                lexical.to(torch.float32) if lexical.numel() else None,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ProfileError(f"Head weights are malformed: {error}.") from error
        if (read.layers, read.heads) != stated:
            raise ProfileError(f"Head weights are {read.layers}x{read.heads}, stated {stated}.")
        return read

"""Undoing and redoing rotary position embedding on keys.

Owns the arithmetic of the half-split convention (as in Llama, Qwen and Mistral): channel c pairs
with channel c + head_dim / 2 at frequency theta^(-2c / head_dim). Knows no model: theta is data.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Rotation:
    """Cosines and sines ``[positions, head_dim / 2]`` of given absolute positions."""

    cosines: torch.Tensor
    sines: torch.Tensor

    @classmethod
    def at(cls, positions: torch.Tensor, head_dim: int, theta: float) -> Rotation:
        """For absolute ``positions`` ``[positions]``."""
        channels = torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim
        angles = positions.to(torch.float64)[:, None] * (theta**-channels)[None]
        return cls(cosines=angles.cos().float(), sines=angles.sin().float())

    def undone(self, keys: torch.Tensor) -> torch.Tensor:
        """Keys ``[..., positions, head_dim]`` as they were before the embedding."""
        first, second = keys.chunk(2, dim=-1)
        return torch.cat(
            (
                first * self.cosines + second * self.sines,
                second * self.cosines - first * self.sines,
            ),
            dim=-1,
        )

    def applied(self, keys: torch.Tensor) -> torch.Tensor:
        """Keys ``[..., positions, head_dim]`` with the embedding."""
        first, second = keys.chunk(2, dim=-1)
        return torch.cat(
            (
                first * self.cosines - second * self.sines,
                second * self.cosines + first * self.sines,
            ),
            dim=-1,
        )

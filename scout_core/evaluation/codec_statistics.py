"""What a transform basis is fitted from: second moments of cache rows and of output gradients.

Owns the accumulation; knows no model and no basis. Rows are laid out as in
``scout_core.codec.transform_basis``: ``[groups, positions, width]``, keys before rotary embedding.
Gradients are those of the log-likelihood of answers sampled from the model itself, so that their
second moment is the Fisher information: half of it is the KL divergence that a small error causes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from scout_core.codec.rotary import Rotation
from scout_core.geometry import KvGeometry


def grouped_rows(kv: torch.Tensor, groups: int, rotation: Rotation) -> torch.Tensor:
    """``[layers, 2, kv_heads, positions, head_dim]`` as ``[2, groups, positions, width]``.

    Keys (and gradients with respect to keys: the rotation is orthogonal) are unrotated.
    """
    layers, _, kv_heads, positions, head_dim = kv.shape
    rows = torch.stack((rotation.undone(kv[:, 0].float()), kv[:, 1].float()))
    rows = rows.reshape(2, groups, layers // groups, kv_heads, positions, head_dim)
    return rows.permute(0, 1, 4, 2, 3, 5).reshape(2, groups, positions, -1)


@dataclass(slots=True)
class CacheStatistics:
    """Sums over calibration texts; all tensors start with ``[2 kinds, groups, …]``.

    ``products`` and ``sums`` are of rows, ``importance`` of gradients, ``sinks`` the sum of the
    first rows ``[2, sink_positions, groups, width]``: the chat template's, which are the same in
    all texts and get means of their own.
    """

    geometry: KvGeometry
    groups: int
    sink_positions: int
    products: torch.Tensor = field(init=False)
    sums: torch.Tensor = field(init=False)
    importance: torch.Tensor = field(init=False)
    sinks: torch.Tensor = field(init=False)
    rows_seen: int = 0
    texts_seen: int = 0

    def __post_init__(self) -> None:
        width = self.geometry.layers // self.groups * self.geometry.kv_heads
        width *= self.geometry.head_dim
        self.products = torch.zeros(2, self.groups, width, width)
        self.sums = torch.zeros(2, self.groups, width)
        self.importance = torch.zeros(2, self.groups, width, width)
        self.sinks = torch.zeros(2, self.sink_positions, self.groups, width)

    def add_rows(self, rows: torch.Tensor) -> None:
        """Rows ``[2, groups, positions, width]`` of one text, from absolute position 0."""
        self.sinks += rows[:, :, : self.sink_positions].transpose(1, 2)
        rest = rows[:, :, self.sink_positions :]
        self.products += rest.transpose(2, 3) @ rest
        self.sums += rest.sum(dim=2)
        self.rows_seen += rest.shape[2]
        self.texts_seen += 1

    def add_gradients(self, gradients: torch.Tensor, weight: float) -> None:
        """Gradients ``[2, groups, positions, width]`` of one sampled continuation."""
        rest = gradients[:, :, self.sink_positions :]
        self.importance += weight * (rest.transpose(2, 3) @ rest)

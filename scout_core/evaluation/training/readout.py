"""What trains a readout: the pointer's target, and one asking row's attention as it passes.

The features themselves are ``quality_probe``'s, the network on top is
``scout_core.selection.readout``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scout_core.evaluation.quality_answers import padded
from scout_core.evaluation.quality_probe import picked
from scout_core.evaluation.training.corpus import Item
from scout_core.selection.readout import standardised

REACH = 4
"""Neighbours on each side of the answer that share its target mass."""


def pointer_mass(item: Item) -> NDArray[np.float32]:
    """Target distribution ``[n]``: answer tokens weigh 1, neighbours fall off linearly."""
    count = len(item.context)
    out = np.zeros(count, dtype=np.float32)
    for (begin, end), weight in zip(item.spans, item.weights, strict=True):
        mass = np.zeros(count, dtype=np.float32)
        for distance in range(REACH, 0, -1):
            share = 1.0 - distance / (REACH + 1)
            mass[max(0, begin - distance) : min(count, end + distance)] = share
        mass[begin:end] = 1.0
        out += weight * mass / mass.sum()
    return out


class Watch:
    """Collects one row's attention over the passage while a forward pass runs.

    Args:
        context: columns of the passage that the row sees, per watched sequence.
        rows_at: the row that asks, per watched sequence.
        batch: which sequences of the batch are watched, int64.
    """

    def __init__(
        self, context: Sequence[Sequence[int]], rows_at: Sequence[int], batch: Tensor
    ) -> None:
        device = batch.device
        self._batch = batch
        self._context, lengths = padded(context, device)
        columns = torch.arange(self._context.shape[1], device=device)
        self._valid = columns[None] < lengths[:, None]
        self._rows = torch.tensor(rows_at, device=device)[:, None]
        self._found: list[Tensor] = []

    def observe(self, _: int, query: Tensor, key: Tensor) -> None:
        rows = picked(query[self._batch], self._rows)
        keys = picked(key[self._batch], self._context)
        size, heads, _, head_dim = rows.shape
        folded = rows.reshape(size, keys.shape[1], -1, head_dim)
        scores = (folded @ keys.transpose(2, 3)).float() * head_dim**-0.5
        scores = scores.reshape(size, heads, -1)
        self._found.append(scores.masked_fill(~self._valid[:, None, :], -1e4).log_softmax(-1))

    def features(self) -> tuple[Tensor, Tensor]:
        """Standardised log-attention ``[watched, layers · heads, n]`` and validity ``[…, n]``."""
        return standardised(torch.cat(self._found, dim=1), self._valid[:, None, :]), self._valid

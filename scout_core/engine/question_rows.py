"""Attention of a question's rows over a cached prefix, summed up while the rows pass through.

Owns the accumulation only: the forward pass itself is untouched, and no matrix of more than one
block of rows of one layer exists at a time.
"""

from __future__ import annotations

import torch

MAX_SCORES = 1 << 23
"""Most scores (heads x rows x columns) held at once: 32 MiB in float32."""


class QuestionRows:
    """Sums softmax attention rows over the first ``columns`` cache entries, per layer and head."""

    def __init__(self, layers: int, heads: int, columns: int, device: torch.device) -> None:
        self._sums = torch.zeros(layers, heads, columns, dtype=torch.float32, device=device)
        self._seen = torch.zeros(layers, columns, dtype=torch.bool, device=device)
        self._rows = 0

    def count(self, rows: int) -> None:
        """Notes that so many rows have passed through every layer."""
        self._rows += rows

    @property
    def mean(self) -> torch.Tensor:
        """float32 ``[layers, heads, columns]``, averaged over the rows seen.

        NaN where a layer's sliding window hid a column from every row: the layer has no opinion.
        """
        return (self._sums / max(self._rows, 1)).where(self._seen[:, None], torch.nan)

    def observe(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        scaling: float,
        mask: torch.Tensor | None,
    ) -> None:
        """Adds the rows of one layer; the softmax runs over all columns, in float32."""
        heads, rows, head_dim = query.shape
        kv_heads, columns, _ = key.shape
        prefix = self._seen.shape[1]
        self._seen[layer] |= True if mask is None else (mask[:, :prefix] == 0).any(dim=0)
        groups = heads // kv_heads
        wide_key = key.float().transpose(1, 2)
        step = max(1, MAX_SCORES // (heads * columns))
        for start in range(0, rows, step):
            part = query[:, start : start + step].float()
            taken = part.shape[1]
            scores = part.reshape(kv_heads, groups * taken, head_dim) @ wide_key
            scores = scores.view(heads, taken, columns) * scaling
            if mask is not None:
                scores += mask[start : start + taken].float()
            weights = scores.softmax(dim=-1)
            self._sums[layer] += weights[:, :, :prefix].sum(dim=1)

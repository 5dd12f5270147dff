"""What a readout reads, for a batch: log-attention of the question's rows over the passage.

Owns the extraction (standardised per head over positions) and the pointer's target. The network
on top is ``scout_core.selection.readout``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from scout_core.evaluation.quality_answers import padded
from scout_core.evaluation.quality_decoder import (
    DecoderShape,
    DecoderWeights,
    Pass,
    hidden_states,
)
from scout_core.evaluation.training.corpus import Item
from scout_core.selection.readout import standardised


@dataclass(frozen=True, slots=True)
class Probe:
    """Where to read: sequence ids, the passage's columns and the question's rows."""

    ids: list[int]
    positions: list[int]
    context_at: tuple[int, int]
    rows_at: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Gathered:
    """A batch of probes as index tensors."""

    ids: Tensor
    positions: Tensor
    context: Tensor
    context_valid: Tensor
    rows: Tensor
    rows_valid: Tensor


def gathered(probes: Sequence[Probe], device: torch.device) -> Gathered:
    ids, _ = padded([probe.ids for probe in probes], device)
    positions, _ = padded([probe.positions for probe in probes], device)
    context, lengths = padded([list(range(*probe.context_at)) for probe in probes], device)
    rows, counts = padded([list(range(*probe.rows_at)) for probe in probes], device)
    columns = torch.arange(context.shape[1], device=device)
    steps = torch.arange(rows.shape[1], device=device)
    return Gathered(
        ids,
        positions,
        context,
        columns[None] < lengths[:, None],
        rows,
        steps[None] < counts[:, None],
    )


def _picked(x: Tensor, index: Tensor) -> Tensor:
    """Columns ``index`` [B, k] of ``x`` [B, H, L, D]."""
    wide = index[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3])
    return x.gather(2, wide)


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
        context_at: columns of the passage, per watched sequence.
        rows_at: the row that asks, per watched sequence.
        batch: which sequences of the batch are watched, int64.
    """

    def __init__(
        self, context_at: Sequence[tuple[int, int]], rows_at: Sequence[int], batch: Tensor
    ) -> None:
        device = batch.device
        self._batch = batch
        self._context, lengths = padded([list(range(*span)) for span in context_at], device)
        columns = torch.arange(self._context.shape[1], device=device)
        self._valid = columns[None] < lengths[:, None]
        self._rows = torch.tensor(rows_at, device=device)[:, None]
        self._found: list[Tensor] = []

    def observe(self, _: int, query: Tensor, key: Tensor) -> None:
        rows = _picked(query[self._batch], self._rows)
        keys = _picked(key[self._batch], self._context)
        size, heads, _, head_dim = rows.shape
        folded = rows.reshape(size, keys.shape[1], -1, head_dim)
        scores = (folded @ keys.transpose(2, 3)).float() * head_dim**-0.5
        scores = scores.reshape(size, heads, -1)
        self._found.append(scores.masked_fill(~self._valid[:, None, :], -1e4).log_softmax(-1))

    def features(self) -> tuple[Tensor, Tensor]:
        """Standardised log-attention ``[watched, layers · heads, n]`` and validity ``[…, n]``."""
        return standardised(torch.cat(self._found, dim=1), self._valid[:, None, :]), self._valid


def scout_features(
    weights: DecoderWeights, shape: DecoderShape, batch: Gathered
) -> tuple[Tensor, Tensor]:
    """``attention_features`` and the passage's hidden states ``[B, n, hidden]`` after the final
    norm, as the engine gives them."""
    found, out = _observed(weights, shape, batch, stop=False)
    normed = functional.rms_norm(
        out, (out.shape[-1],), weights.final_norm.to(out.dtype), shape.norm_epsilon
    )
    index = batch.context[:, :, None].expand(-1, -1, normed.shape[-1])
    return found, normed.gather(1, index)


def attention_features(weights: DecoderWeights, shape: DecoderShape, batch: Gathered) -> Tensor:
    """Standardised log-attention ``[B, layers · heads · 2, n]``: mean over the question's rows,
    then the last row, for every head of every layer of ``weights``."""
    return _observed(weights, shape, batch, stop=True)[0]


def _observed(
    weights: DecoderWeights,
    shape: DecoderShape,
    batch: Gathered,
    *,
    stop: bool,
) -> tuple[Tensor, Tensor]:
    found: list[Tensor] = []
    last = batch.rows_valid.sum(1) - 1

    def observe(_: int, query: Tensor, key: Tensor) -> None:
        rows, keys = _picked(query, batch.rows), _picked(key, batch.context)
        size, heads, count, head_dim = rows.shape
        folded = rows.reshape(size, shape.kv_heads, -1, head_dim)
        scores = (folded @ keys.transpose(2, 3)).float() * head_dim**-0.5
        scores = scores.reshape(size, heads, count, -1)
        scores = scores.masked_fill(~batch.context_valid[:, None, None, :], -1e4)
        logs = scores.log_softmax(-1)
        real = batch.rows_valid[:, None, :, None]
        total = batch.rows_valid.sum(1)[:, None, None].float()
        mean = logs.masked_fill(~real, -1e4).logsumexp(2) - total.log()
        final = logs.gather(
            2, last[:, None, None, None].expand(-1, heads, 1, logs.shape[3])
        ).squeeze(2)
        found.append(mean)
        found.append(final)

    run = Pass(batch.positions, observe=observe, stop_after_scores=stop)
    out, _ = hidden_states(weights, shape, weights.embedding[batch.ids], run)
    stacked = torch.cat(found, dim=1)
    return standardised(stacked, batch.context_valid[:, None, :]), out

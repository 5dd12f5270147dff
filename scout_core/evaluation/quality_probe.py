"""Attention of a question's rows over a passage, for a batch of sequences in one pass.

Owns the extraction: log-attention (mean over the question's rows, and the last row), standardised
per head over the passage, and the passage's hidden states. Knows neither prompts nor readouts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from scout_core.evaluation.quality_answers import padded
from scout_core.evaluation.quality_decoder import (
    DecoderShape,
    DecoderWeights,
    Pass,
    hidden_states,
)
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


def picked(x: Tensor, index: Tensor) -> Tensor:
    """Columns ``index`` [B, k] of ``x`` [B, H, L, D]."""
    wide = index[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3])
    return x.gather(2, wide)


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
        rows, keys = picked(query, batch.rows), picked(key, batch.context)
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

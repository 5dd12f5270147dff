"""The cloud's own calibrated heads: logistic regression of the answer's positions.

Owns the fit for a batch of items on the training decoder. The features are the same standardised
log-attention the scout reads; the weights are what a profile ships for ``kv_select``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from scout_core.evaluation.quality_answers import Model
from scout_core.evaluation.quality_batches import by_length
from scout_core.evaluation.quality_probe import attention_features, gathered
from scout_core.evaluation.training.corpus import Item
from scout_core.evaluation.training.prompts import Prompter
from scout_core.evaluation.training.scout import cloud_probe


@torch.no_grad()
def cloud_features(
    model: Model, prompter: Prompter, items: Sequence[Item], token_budget: int = 60_000
) -> list[Tensor]:
    """Per item ``[layers · heads, n]``: standardised log of the mean attention, float32 on CPU."""
    out: list[Tensor] = [torch.empty(0)] * len(items)
    heads = model.shape.heads
    for index in by_length([len(item.context) + 90 for item in items], token_budget):
        part = [items[i] for i in index]
        batch = gathered([cloud_probe(item, prompter) for item in part], model.device)
        found = attention_features(model.weights, model.shape, batch)
        size, _, length = found.shape
        mean = found.view(size, model.shape.layers, 2, heads, length)[:, :, 0]
        mean = mean.reshape(size, -1, length)
        for row, place in enumerate(index):
            out[place] = mean[row, :, : len(items[place].context)].cpu()
    return out


def fit_heads(
    features: Sequence[Tensor], items: Sequence[Item], *, l2: float, device: torch.device
) -> Tensor:
    """Head weights ``[layers · heads]`` by full-batch regularised logistic regression."""
    kept = [i for i, item in enumerate(items) if item.spans]
    table = torch.cat([features[i] for i in kept], dim=1).to(device)
    labels = torch.zeros(table.shape[1], device=device)
    offset = 0
    for i in kept:
        for (begin, end), weight in zip(items[i].spans, items[i].weights, strict=True):
            labels[offset + begin : offset + end] = max(weight, 0.0)
        offset += len(items[i].context)
    weights = torch.zeros(table.shape[0], device=device, requires_grad=True)
    bias = torch.full((1,), -3.0, device=device, requires_grad=True)
    optimiser = torch.optim.Adam([weights, bias], lr=0.02)
    for _ in range(400):
        loss = functional.binary_cross_entropy_with_logits(weights @ table + bias, labels)
        loss = loss + l2 * weights.square().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return weights.detach()

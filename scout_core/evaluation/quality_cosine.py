"""How alike the caches of scout and cloud are, where their shapes allow a comparison.

Definition: both models prefill the same tokens (the cloud's head and the context) at the same
positions. For a layer that both have, a KV head and a context token, the cosine is between the
scout's and the cloud's vector of ``head_dim`` numbers, keys as they are cached (after RoPE). A
row's figure is the mean over KV heads and context tokens. The *centred* figure subtracts from each
model's vectors their mean over the context's tokens first: vectors of one head share a large
constant part, which alone makes a raw cosine high, and what tells tokens apart is the rest. Layers
are compared by number, the scout's first with the cloud's first. Shapes allow it if KV heads, head
size and tokenizer are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from scout_core.evaluation.dataset import Example
from scout_core.evaluation.quality_answers import Model, prefill
from scout_core.evaluation.quality_models import Pair


@dataclass(frozen=True, slots=True)
class CosineRow:
    """Mean cosines of one layer, or of all compared layers (``layer`` None)."""

    layer: int | None
    tokens: int
    keys: float
    values: float
    centred_keys: float
    centred_values: float


def kv_cosines(pair: Pair, examples: Sequence[Example]) -> tuple[CosineRow, ...]:
    """A row per layer and one over all; none where shapes or tokenizers differ."""
    if pair.scouting is None or not examples:
        return ()
    ours, theirs = pair.scouting.model.shape, pair.model.shape
    if (ours.kv_heads, ours.head_dim) != (theirs.kv_heads, theirs.head_dim):
        return ()
    depth = min(ours.layers, theirs.layers)
    sums = torch.zeros(depth, 4, dtype=torch.float64)
    tokens = 0
    for example in examples:
        context = pair.cloud.prompt.context_tokens(example.context)
        tokens += len(context)
        sums += _cosines(pair.scouting.model, pair.model, pair.cloud.prompt.head_tokens, context)
    means = sums / tokens
    rows = [CosineRow(i, tokens, *row) for i, row in enumerate(means.tolist())]
    return (*rows, CosineRow(None, tokens, *means.mean(0).tolist()))


@torch.no_grad()
def _cosines(scout: Model, cloud: Model, head: Sequence[int], context: Sequence[int]) -> Tensor:
    """Sums over the context's tokens ``[layers, 4]``: keys, values, both again centred."""
    ids = [[*head, *context]]
    ours, theirs = prefill(scout, ids).cache, prefill(cloud, ids).cache
    rows: list[list[float]] = []
    for layer in range(min(len(ours.keys), len(theirs.keys))):
        pairs = [
            (a[layer][0, :, len(head) :].float(), b[layer][0, :, len(head) :].float())
            for a, b in ((ours.keys, theirs.keys), (ours.values, theirs.values))
        ]
        centred = [(a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)) for a, b in pairs]
        found = [cosine_similarity(a, b, dim=-1) for a, b in (*pairs, *centred)]
        rows.append([float(values.mean(0).sum()) for values in found])
    return torch.tensor(rows, dtype=torch.float64)

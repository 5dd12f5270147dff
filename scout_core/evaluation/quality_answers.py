"""Batched greedy answers over a selected part of a passage's cache.

Owns both executions of a selection for a batch of questions: *evict* gathers the kept columns of
a full prefill, *sparse* prefills the kept tokens only, at their original positions. Token ids in,
token ids out; knows no text, no scores and no files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scout_core.evaluation.quality_decoder import (
    DecoderShape,
    DecoderWeights,
    KeyValues,
    Pass,
    hidden_states,
    logits_of,
)


@dataclass(frozen=True, slots=True)
class Model:
    """A decoder ready to answer."""

    weights: DecoderWeights
    shape: DecoderShape
    stop_tokens: frozenset[int]

    @property
    def device(self) -> torch.device:
        return self.weights.embedding.device


@dataclass(frozen=True, slots=True)
class Prefix:
    """A batch of prefilled prefixes, right-padded; ``lengths`` [B] counts real columns."""

    cache: KeyValues
    lengths: Tensor
    valid: Tensor
    """bool ``[B, L]``: which columns are real."""


def padded(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Right-padded ids ``[B, L]`` and lengths ``[B]``; the padding token is 0 and never seen."""
    lengths = torch.tensor([len(row) for row in rows])
    out = torch.zeros((len(rows), int(lengths.max())), dtype=torch.long)
    for index, row in enumerate(rows):
        out[index, : len(row)] = torch.tensor(row, dtype=torch.long)
    return out.to(device), lengths.to(device)


def prefill(
    model: Model, rows: Sequence[Sequence[int]], positions: Sequence[Sequence[int]] | None = None
) -> Prefix:
    """Prefill ``rows`` of token ids, at ``positions`` if given (gapped: a sparse prefill)."""
    ids, lengths = padded(rows, model.device)
    columns = torch.arange(ids.shape[1], device=model.device)
    if positions is None:
        places = columns[None].expand_as(ids)
    else:
        places, _ = padded(positions, model.device)
    embedded = model.weights.embedding[ids]
    run = Pass(places, keep_cache=True)
    _, cache = hidden_states(model.weights, model.shape, embedded, run)
    return Prefix(cache, lengths, columns[None] < lengths[:, None])


def evicted(prefix: Prefix, kept: Sequence[Sequence[int]]) -> Prefix:
    """Keep columns ``kept`` of every row: what eviction after a full prefill leaves."""
    index, lengths = padded(kept, prefix.lengths.device)
    columns = torch.arange(index.shape[1], device=index.device)
    return Prefix(prefix.cache.with_room(index, 0), lengths, columns[None] < lengths[:, None])


def _first_tokens(
    model: Model, cache: KeyValues, valid: Tensor, tails: Sequence[Sequence[int]], starts: Tensor
) -> tuple[Tensor, Tensor]:
    """Run the tails; the first answer token ``[B]`` and the validity of all columns so far."""
    ids, lengths = padded(tails, model.device)
    steps = torch.arange(ids.shape[1], device=model.device)
    real = steps[None] < lengths[:, None]
    causal = (steps[None, :] <= steps[:, None])[None] & real[:, None, :]
    before = valid[:, None, :].expand(-1, ids.shape[1], -1)
    mask = torch.cat((before, causal), dim=2)[:, None]
    run = Pass(starts[:, None] + steps[None], mask=mask, past=cache)
    out, _ = hidden_states(model.weights, model.shape, model.weights.embedding[ids], run)
    cache.filled += ids.shape[1]
    last = out[torch.arange(len(tails), device=model.device), lengths - 1]
    token = logits_of(model.weights, model.shape, last).argmax(dim=-1)
    return token, torch.cat((valid, real), dim=1)


@torch.no_grad()
def greedy_answers(
    model: Model,
    prefix: Prefix,
    tails: Sequence[Sequence[int]],
    starts: Sequence[int],
    max_new: int,
) -> list[list[int]]:
    """Greedy continuation of every row, without the stop token.

    Args:
        prefix: the kept columns; it is copied, so that one prefill serves many calls.
        tails: question and generation prompt, per row.
        starts: the position of every tail's first token (head + context, before selection).
        max_new: most tokens per answer.
    """
    room = max(len(tail) for tail in tails) + max_new
    cache = prefix.cache.with_room(None, room)
    place = torch.tensor(starts, device=model.device)
    token, valid = _first_tokens(model, cache, prefix.valid, tails, place)
    place = place + torch.tensor([len(tail) for tail in tails], device=model.device)
    answers: list[list[int]] = [[] for _ in tails]
    alive = torch.arange(len(tails), device=model.device)
    stops = torch.tensor(sorted(model.stop_tokens), device=model.device)
    for step in range(max_new):
        for row, value in zip(alive.tolist(), token.tolist(), strict=True):
            if value not in model.stop_tokens:
                answers[row].append(value)
        going = ~torch.isin(token, stops)
        if step == max_new - 1 or not bool(going.any()):
            break
        # Finished rows leave at once: the cost of a step on CPU is proportional to its rows.
        if not bool(going.all()):
            index = going.nonzero()[:, 0]
            alive, token, place, valid = alive[index], token[index], place[index], valid[index]
            cache = cache.rows(index)
        valid = torch.cat((valid, torch.ones_like(valid[:, :1])), dim=1)
        run = Pass(place[:, None], mask=valid[:, None, None, :], past=cache)
        embedded = model.weights.embedding[token[:, None]]
        out, _ = hidden_states(model.weights, model.shape, embedded, run)
        cache.filled += 1
        token = logits_of(model.weights, model.shape, out[:, 0]).argmax(dim=-1)
        place = place + 1
    return answers


@torch.no_grad()
def question_attention(
    model: Model, prefix: Prefix, tails: Sequence[Sequence[int]], starts: Sequence[int]
) -> list[Tensor]:
    """Per row the attention ``[layers, heads, columns]`` of its tail to the prefix, row-averaged.

    The softmax runs over everything the tail sees, as in the engine; float32 on the CPU.
    """
    found: list[Tensor] = []
    ids, lengths = padded(tails, model.device)
    steps = torch.arange(ids.shape[1], device=model.device)
    real = steps[None] < lengths[:, None]
    causal = (steps[None, :] <= steps[:, None])[None] & real[:, None, :]
    before = prefix.valid[:, None, :].expand(-1, ids.shape[1], -1)
    mask = torch.cat((before, causal), dim=2)
    columns = prefix.valid.shape[1]

    def observe(_: int, query: Tensor, key: Tensor) -> None:
        size, heads, rows, head_dim = query.shape
        folded = query.reshape(size, key.shape[1], -1, head_dim)
        scores = (folded @ key.transpose(2, 3)).float() * head_dim**-0.5
        scores = scores.view(size, heads, rows, -1).masked_fill(~mask[:, None], -1e9)
        seen = scores.softmax(-1)[..., :columns] * real[:, None, :, None]
        found.append(seen.sum(2) / lengths[:, None, None])

    cache = prefix.cache.with_room(None, ids.shape[1])
    place = torch.tensor(starts, device=model.device)[:, None] + steps[None]
    run = Pass(place, mask=mask[:, None], past=cache, observe=observe)
    hidden_states(model.weights, model.shape, model.weights.embedding[ids], run)
    whole = torch.stack(found, dim=1).cpu()
    return [whole[row, :, :, : int(count)] for row, count in enumerate(prefix.lengths.tolist())]

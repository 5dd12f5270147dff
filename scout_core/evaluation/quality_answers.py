"""Batched answers over a selected part of a passage's cache, the likeliest unless told to draw.

Owns both executions of a selection for a batch of questions: *evict* gathers the kept columns of
a full prefill, *sparse* runs the kept tokens and the tail in one pass, at their original
positions. Token ids in, token ids out; knows no text, no scores and no files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scout_core.evaluation.quality_batches import by_length
from scout_core.evaluation.quality_decoder import (
    DecoderShape,
    DecoderWeights,
    KeyValues,
    Pass,
    hidden_states,
    logits_of,
)

Pick = Callable[[Tensor], Tensor]
"""The next token ``[B]`` from logits ``[B, vocabulary]``."""
LEAVE_BELOW = 0.8
"""Finished rows of a batch leave it when no more than this share is still going."""


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
    room: int = 0
    """Free columns behind those; answering with at least as many as it needs writes in place."""

    def rows(self, index: Sequence[int]) -> Prefix:
        """A copy of batch rows ``index``, in that order, repeated if asked."""
        chosen = torch.tensor(index, device=self.lengths.device)
        return Prefix(self.cache.rows(chosen), self.lengths[chosen], self.valid[chosen])


def likeliest(logits: Tensor) -> Tensor:
    """The token of the highest logit ``[B]``; of several, the first."""
    return logits.argmax(dim=-1)


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
    run = Pass(places, keep_cache=True, needed=ids[:, :0])
    _, cache = hidden_states(model.weights, model.shape, embedded, run)
    return Prefix(cache, lengths, columns[None] < lengths[:, None])


@torch.no_grad()
def prefill_in_passes(model: Model, rows: Sequence[Sequence[int]], pass_tokens: int) -> Prefix:
    """``prefill`` in passes of rows of like lengths; the result has the rows' order."""
    places = [range(len(row)) for row in rows]
    return _in_passes(model, rows, places, pass_tokens, room=0)[0]


def _in_passes(
    model: Model,
    rows: Sequence[Sequence[int]],
    positions: Sequence[Sequence[int]],
    pass_tokens: int,
    room: int,
) -> tuple[Prefix, Tensor]:
    """A prefix of whole rows with ``room`` behind it, and the last tokens' outputs [B, hidden]."""
    lengths = torch.tensor([len(row) for row in rows], device=model.device)
    longest = int(lengths.max())
    embedding = model.weights.embedding
    last = embedding.new_zeros(len(rows), embedding.shape[1])
    cache = KeyValues([], [], longest)
    for index in by_length([len(row) for row in rows], pass_tokens):
        ids, own = padded([rows[i] for i in index], model.device)
        places, _ = padded([positions[i] for i in index], model.device)
        run = Pass(places, keep_cache=True, needed=own[:, None] - 1)
        out, part = hidden_states(model.weights, model.shape, embedding[ids], run)
        owners = torch.tensor(index, device=model.device)
        last[owners] = out[:, 0]
        if not cache.keys:
            sizes = [(len(rows), k.shape[1], longest + room, k.shape[3]) for k in part.keys]
            cache.keys = [k.new_zeros(size) for k, size in zip(part.keys, sizes, strict=True)]
            cache.values = [v.new_zeros(size) for v, size in zip(part.values, sizes, strict=True)]
        for whole, found in ((cache.keys, part.keys), (cache.values, part.values)):
            for target, source in zip(whole, found, strict=True):
                target[owners, :, : source.shape[2]] = source
    columns = torch.arange(longest, device=model.device)
    return Prefix(cache, lengths, columns[None] < lengths[:, None], room), last


def evicted(
    prefix: Prefix,
    kept: Sequence[Sequence[int]],
    rows: Sequence[int] | None = None,
    room: int = 0,
) -> Prefix:
    """Keep columns ``kept``: what eviction after a full prefill leaves.

    Args:
        rows: whose columns they are, one batch row of ``prefix`` per entry; None: each its own.
        room: free columns behind the kept ones, so that answering need not copy again.
    """
    index, lengths = padded(kept, prefix.lengths.device)
    columns = torch.arange(index.shape[1], device=index.device)
    valid = columns[None] < lengths[:, None]
    source = None if rows is None else torch.tensor(rows, device=index.device)
    return Prefix(prefix.cache.with_room(index, room, source), lengths, valid, room)


def _first_logits(
    model: Model, cache: KeyValues, valid: Tensor, tails: Sequence[Sequence[int]], starts: Tensor
) -> tuple[Tensor, Tensor]:
    """Run the tails; logits of the first answer token and the validity of all columns so far."""
    ids, lengths = padded(tails, model.device)
    steps = torch.arange(ids.shape[1], device=model.device)
    real = steps[None] < lengths[:, None]
    causal = (steps[None, :] <= steps[:, None])[None] & real[:, None, :]
    before = valid[:, None, :].expand(-1, ids.shape[1], -1)
    mask = torch.cat((before, causal), dim=2)[:, None]
    needed = lengths[:, None] - 1
    run = Pass(starts[:, None] + steps[None], mask=mask, past=cache, needed=needed)
    out, _ = hidden_states(model.weights, model.shape, model.weights.embedding[ids], run)
    cache.filled += ids.shape[1]
    return logits_of(model.weights, model.shape, out[:, 0]), torch.cat((valid, real), dim=1)


@torch.no_grad()
def continued_tails(
    model: Model,
    prefix: Prefix,
    tails: Sequence[Sequence[int]],
    starts: Sequence[int],
    max_new: int,
    pick: Pick = likeliest,
) -> list[list[int]]:
    """What follows the tail of every row, without the stop token.

    Args:
        prefix: the kept columns; copied, so that one prefill serves many calls, unless it came
            with the room that its answers need.
        tails: question and generation prompt, per row.
        starts: the position of every tail's first token (head + context, before selection).
        max_new: most tokens per answer.
        pick: chooses every next token.
    """
    room = max(len(tail) for tail in tails) + max_new
    cache = prefix.cache if prefix.room >= room else prefix.cache.with_room(None, room)
    place = torch.tensor(starts, device=model.device)
    logits, valid = _first_logits(model, cache, prefix.valid, tails, place)
    place = place + torch.tensor([len(tail) for tail in tails], device=model.device)
    return _continued(model, _Decoding(cache, valid, pick(logits), place), max_new, pick)


@torch.no_grad()
def sparse_answers(
    model: Model,
    rows: Sequence[Sequence[int]],
    positions: Sequence[Sequence[int]],
    max_new: int,
    pass_tokens: int,
) -> list[list[int]]:
    """Greedy continuation of ``rows``: head, kept context tokens and tail at their ``positions``.

    Nothing but these tokens is run, each row in one pass; all rows are decoded together.
    """
    prefix, last = _in_passes(model, rows, positions, pass_tokens, max_new)
    token = likeliest(logits_of(model.weights, model.shape, last))
    place = torch.tensor([row[-1] + 1 for row in positions], device=model.device)
    return _continued(
        model, _Decoding(prefix.cache, prefix.valid, token, place), max_new, likeliest
    )


@dataclass(slots=True)
class _Decoding:
    """A batch in the middle of its answers.

    ``token`` [B] comes next, at ``place`` [B]; ``valid`` bool [B, filled columns].
    """

    cache: KeyValues
    valid: Tensor
    token: Tensor
    place: Tensor

    def rows(self, index: Tensor) -> _Decoding:
        return _Decoding(
            self.cache.rows(index), self.valid[index], self.token[index], self.place[index]
        )

    def step(self, model: Model, pick: Pick) -> None:
        """Runs ``token`` and puts the next one in its place."""
        self.valid = torch.cat((self.valid, torch.ones_like(self.valid[:, :1])), dim=1)
        run = Pass(self.place[:, None], mask=self.valid[:, None, None, :], past=self.cache)
        embedded = model.weights.embedding[self.token[:, None]]
        out, _ = hidden_states(model.weights, model.shape, embedded, run)
        self.cache.filled += 1
        self.token = pick(logits_of(model.weights, model.shape, out[:, 0]))
        self.place = self.place + 1


def _continued(model: Model, state: _Decoding, max_new: int, pick: Pick) -> list[list[int]]:
    """Decodes until every row has stopped or has ``max_new`` tokens."""
    answers: list[list[int]] = [[] for _ in range(len(state.token))]
    owners = torch.arange(len(state.token))
    stops = torch.tensor(sorted(model.stop_tokens), device=model.device)
    stopped = torch.zeros_like(state.token, dtype=torch.bool)
    for step in range(max_new):
        stopped = stopped | torch.isin(state.token, stops)
        done = stopped.tolist()
        for row, value, over in zip(owners.tolist(), state.token.tolist(), done, strict=True):
            if not over:
                answers[row].append(value)
        going = len(done) - sum(done)
        if step == max_new - 1 or not going:
            break
        # A finished row costs a row of every product, taking it out copies the others' cache.
        if going <= LEAVE_BELOW * len(done):
            index = (~stopped).nonzero()[:, 0]
            state, owners, stopped = state.rows(index), owners[index.cpu()], stopped[index]
        state.step(model, pick)
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
    run = Pass(place, mask=mask[:, None], past=cache, observe=observe, needed=ids[:, :0])
    hidden_states(model.weights, model.shape, model.weights.embedding[ids], run)
    whole = torch.stack(found, dim=1).cpu()
    return [whole[row, :, :, : int(count)] for row, count in enumerate(prefix.lengths.tolist())]

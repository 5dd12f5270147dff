"""Batched continuations of many prompts on one device: sampled or greedy, in slices by length.

Owns the sampling rule; the arithmetic is ``quality_answers``. Knows no text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scout_core.evaluation.quality_answers import Model, Prefix, greedy_answers, prefill
from scout_core.evaluation.quality_batches import by_length
from scout_core.evaluation.quality_decoder import Pass, hidden_states, logits_of


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt cut where its cacheable part ends."""

    prefix: list[int]
    tail: list[int]


def greedy(
    model: Model, prompts: Sequence[Prompt], *, max_new: int, token_budget: int
) -> list[list[int]]:
    """Greedy continuation of every prompt, in the prompts' order."""
    out: list[list[int]] = [[] for _ in prompts]
    with torch.no_grad():
        for index in by_length([len(p.prefix) + len(p.tail) for p in prompts], token_budget):
            part = [prompts[i] for i in index]
            prefix = prefill(model, [p.prefix for p in part])
            starts = [len(p.prefix) for p in part]
            answers = greedy_answers(model, prefix, [p.tail for p in part], starts, max_new)
            for place, answer in zip(index, answers, strict=True):
                out[place] = answer
    return out


@dataclass(frozen=True, slots=True)
class Draw:
    """How to sample: temperature, nucleus and most tokens."""

    temperature: float
    top_p: float
    max_new: int


def nucleus(logits: Tensor, draw: Draw, generator: torch.Generator) -> Tensor:
    """One token per row from the smallest set that holds ``top_p`` of the mass (top 64 at most)."""
    top, index = (logits.float() / draw.temperature).topk(64, dim=-1)
    shares = top.softmax(-1)
    shares = shares * ((shares.cumsum(-1) - shares) < draw.top_p)
    chosen = torch.multinomial(shares, 1, generator=generator)
    return index.gather(1, chosen)[:, 0]


@torch.no_grad()
def sampled(
    model: Model,
    prompts: Sequence[list[int]],
    draw: Draw,
    *,
    seed: int,
    token_budget: int,
) -> list[list[int]]:
    """A sampled continuation of every prompt, in the prompts' order, without the stop token."""
    generator = torch.Generator(model.device).manual_seed(seed)
    out: list[list[int]] = [[] for _ in prompts]
    for index in by_length([len(prompt) + draw.max_new for prompt in prompts], token_budget):
        part = [prompts[i] for i in index]
        prefix = prefill(model, [prompt[:-1] for prompt in part])
        last = torch.tensor([prompt[-1] for prompt in part], device=model.device)
        for place, answer in zip(
            index, _continued(model, prefix, last, draw, generator), strict=True
        ):
            out[place] = answer
    return out


def _continued(
    model: Model, prefix: Prefix, token: Tensor, draw: Draw, generator: torch.Generator
) -> list[list[int]]:
    cache = prefix.cache.with_room(None, draw.max_new)
    valid, place = prefix.valid, prefix.lengths.clone()
    drawn: list[Tensor] = []
    stops = torch.tensor(sorted(model.stop_tokens), device=model.device)
    stopped = torch.zeros_like(token, dtype=torch.bool)
    for _ in range(draw.max_new):
        valid = torch.cat((valid, torch.ones_like(valid[:, :1])), dim=1)
        run = Pass(place[:, None], mask=valid[:, None, None, :], past=cache)
        embedded = model.weights.embedding[token[:, None]]
        hidden, _ = hidden_states(model.weights, model.shape, embedded, run)
        cache.filled += 1
        place = place + 1
        token = nucleus(logits_of(model.weights, model.shape, hidden[:, 0]), draw, generator)
        drawn.append(token.masked_fill(stopped, -1))
        stopped = stopped | torch.isin(token, stops)
        if bool(stopped.all()):
            break
    table = torch.stack(drawn, dim=1).tolist()
    ended = {-1, *model.stop_tokens}
    return [[t for t in row if t not in ended] for row in table]

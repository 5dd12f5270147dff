"""Batched continuations of many prompts on one device: sampled or greedy, in slices by length.

Owns the sampling rule; the arithmetic is ``quality_answers``. Knows no text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scout_core.evaluation.quality_answers import (
    Model,
    Pick,
    continued_tails,
    likeliest,
    prefill_in_passes,
)
from scout_core.evaluation.quality_batches import PASS_TOKENS, by_length

CANDIDATES = 64
"""Tokens that may be drawn, at most."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt cut where its cacheable part ends."""

    prefix: list[int]
    tail: list[int]


@dataclass(frozen=True, slots=True)
class Draw:
    """How to sample: temperature, nucleus and most tokens."""

    temperature: float
    top_p: float
    max_new: int


def greedy(
    model: Model, prompts: Sequence[Prompt], *, max_new: int, token_budget: int
) -> list[list[int]]:
    """Greedy continuation of every prompt, in the prompts' order."""
    return _continued(model, prompts, max_new, token_budget, likeliest)


def sampled(
    model: Model,
    prompts: Sequence[list[int]],
    draw: Draw,
    *,
    seed: int,
    token_budget: int,
) -> list[list[int]]:
    """A sampled continuation of every prompt, in the prompts' order, without the stop token."""
    cut = [Prompt(prompt[:-1], prompt[-1:]) for prompt in prompts]
    pick = drawing(draw, torch.Generator(model.device).manual_seed(seed))
    return _continued(model, cut, draw.max_new, token_budget, pick)


def drawing(draw: Draw, generator: torch.Generator) -> Pick:
    """Draws every next token; its generator is on the logits' device."""

    def pick(logits: Tensor) -> Tensor:
        return nucleus(logits, draw, generator)

    return pick


def nucleus(logits: Tensor, draw: Draw, generator: torch.Generator) -> Tensor:
    """One token per row from the smallest set that holds ``top_p`` of the ``CANDIDATES``' mass."""
    top, index = logits.topk(min(CANDIDATES, logits.shape[-1]), dim=-1)
    shares = (top.float() / draw.temperature).softmax(-1)
    shares = shares * ((shares.cumsum(-1) - shares) < draw.top_p)
    chosen = torch.multinomial(shares, 1, generator=generator)
    return index.gather(1, chosen)[:, 0]


def _continued(
    model: Model, prompts: Sequence[Prompt], max_new: int, token_budget: int, pick: Pick
) -> list[list[int]]:
    out: list[list[int]] = [[] for _ in prompts]
    sizes = [len(prompt.prefix) + len(prompt.tail) + max_new for prompt in prompts]
    for index in by_length(sizes, token_budget):
        part = [prompts[i] for i in index]
        prefix = prefill_in_passes(model, [p.prefix for p in part], PASS_TOKENS[model.device.type])
        starts = [len(p.prefix) for p in part]
        tails = [p.tail for p in part]
        for place, answer in zip(
            index, continued_tails(model, prefix, tails, starts, max_new, pick), strict=True
        ):
            out[place] = answer
    return out

"""Heads of a model that point at the answer, fitted: for ``scout calibrate`` and for the study.

Owns the collection of cases for ``scout_core.selection.calibration``, in batches where the batched
decoder computes the model exactly, and the split that keeps the fitted articles out of what is
measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scout_core.engine import Engine
from scout_core.errors import EmptyInputError
from scout_core.evaluation.dataset import Example, hold_out
from scout_core.evaluation.quality_answers import Model, prefill, question_attention
from scout_core.evaluation.quality_batches import PASS_TOKENS, by_length
from scout_core.evaluation.quality_case import answer_ranges
from scout_core.evaluation.quality_models import Pair
from scout_core.selection import HeadWeights
from scout_core.selection.calibration import CalibrationCase, fit_head_weights
from scout_core.selection.passage import pieces_of
from scout_core.selection.scores import lexical_rows

SPLIT_SEED = 11
MOST_FITTED = 200
"""Questions that the study fits heads on: a few hundred weights need no more."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question in a model's own tokens, and where its answer stands."""

    tokens: tuple[int, ...]
    tail: tuple[int, ...]
    ranges: tuple[tuple[int, int], ...]
    words: Tensor
    """``lexical_rows`` of question and context."""


def _asked(engine: Engine, example: Example) -> _Asked:
    tokens, spans = engine.prompt.located_tokens(example.context)
    return _Asked(
        tokens,
        engine.prompt.tail_tokens(example.question),
        answer_ranges(example, spans),
        lexical_rows(pieces_of(example.context, spans), example.question),
    )


def fitted_heads(
    engine: Engine, model: Model | None, examples: Sequence[Example], *, words: bool = False
) -> HeadWeights:
    """Weights of the engine's heads, from the examples whose context holds their answer.

    Args:
        model: the engine's weights in the batched decoder; None takes one question at a time.
        words: whether word overlap is weighed beside the heads, as a scout may.

    Raises:
        EmptyInputError: no context holds its answer.
    """
    asked = [found for example in examples if (found := _asked(engine, example)).ranges]
    if not asked:
        raise EmptyInputError("No context holds its answer word by word: heads cannot be fitted.")
    # Heads of windowed layers see too little of a long passage; the engine takes account of that.
    batched = model if model is not None and model.shape.window is None else None
    seen = _one_by_one(engine, asked) if batched is None else _together(engine, batched, asked)
    cases: list[CalibrationCase] = []
    for one, attention in zip(asked, seen, strict=True):
        answer = torch.zeros(len(one.tokens), dtype=torch.bool)
        for begin, end in one.ranges:
            answer[begin:end] = True
        over_context = attention[:, :, len(engine.prompt.head_tokens) :]
        cases.append(CalibrationCase(over_context, answer, one.words if words else None))
    return fit_head_weights(cases, pool_width=1).weights


def _one_by_one(engine: Engine, asked: Sequence[_Asked]) -> list[Tensor]:
    head = engine.prompt.head_tokens
    seen: list[Tensor] = []
    for one in asked:
        cache = engine.new_cache(len(head) + len(one.tokens))
        engine.prefill(cache, (*head, *one.tokens))
        seen.append(engine.question_attention(cache, one.tail))
    return seen


@torch.no_grad()
def _together(engine: Engine, model: Model, asked: Sequence[_Asked]) -> list[Tensor]:
    head = engine.prompt.head_tokens
    seen: list[Tensor] = [torch.empty(0)] * len(asked)
    lengths = [len(head) + len(one.tokens) for one in asked]
    for index in by_length(lengths, PASS_TOKENS[model.device.type]):
        prefix = prefill(model, [[*head, *asked[i].tokens] for i in index])
        tails = [asked[i].tail for i in index]
        found = question_attention(model, prefix, tails, [lengths[i] for i in index])
        for place, attention in zip(index, found, strict=True):
            seen[place] = attention
    return seen


def with_fitted_heads(pair: Pair, examples: Sequence[Example]) -> tuple[Pair, list[Example]]:
    """The pair with heads fitted on half of the articles, and the questions of the other half.

    Raises:
        EmptyInputError: as ``fitted_heads``.
    """
    fit_on, rest = hold_out(examples, at_least=len(examples) // 2, seed=SPLIT_SEED)
    heads = fitted_heads(pair.cloud, pair.model, fit_on[:MOST_FITTED])
    return replace(pair, heads=heads), list(rest)

"""F1 of answers read from decoded caches, relative to answers from the exact bf16 cache.

Owns the measurement behind ``scout bench codec --f1-data``. The context's positions go through the
codec, the template's head before them does not, as in a session; the batched decoder of the quality
study answers. Knows no files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from scout_core.engine import Engine
from scout_core.evaluation.codec_coded import Contender, ExactCache
from scout_core.evaluation.codec_prefix import cache_rows, code_in_place
from scout_core.evaluation.dataset import Example
from scout_core.evaluation.metrics import Floats, answer_f1, paired_p_value, ratio_interval
from scout_core.evaluation.quality_answers import Model, Prefix, continued_tails, prefill
from scout_core.evaluation.quality_decoder import KeyValues
from scout_core.evaluation.quality_models import batched_model
from scout_core.selection.importance import attended_importance

BATCH: Final = 8
"""Questions decoded together; their caches are held twice."""
MAX_ANSWER_TOKENS: Final = 32

OnProgress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """One contender over all questions."""

    codec: str
    origin: str
    model: str
    n: int
    context_tokens: int
    """Mean."""
    ratio: float
    """Of bf16 to payload bytes."""
    f1: float
    exact_f1: float
    """With the exact bf16 cache."""
    f1_ratio: float
    f1_ratio_low: float
    """Ends of the 95 % bootstrap interval over questions."""
    f1_ratio_high: float
    p_value: float
    """Of no difference from the exact cache: paired, two-sided."""


@dataclass(slots=True)
class _Tally:
    f1: list[float] = field(default_factory=list[float])
    raw_bytes: int = 0
    payload_bytes: float = 0.0


@dataclass(frozen=True, slots=True)
class _Question:
    context: tuple[int, ...]
    tail: tuple[int, ...]
    answers: tuple[str, ...]


def answer_rows(
    engine: Engine,
    examples: Sequence[Example],
    contenders: Sequence[Contender],
    on_progress: OnProgress,
) -> tuple[AnswerRow, ...]:
    """Answers every question from every contender's cache; rows in the contenders' order.

    There are none if the model answers no question at all from the exact cache: its F1 is what
    they are relative to. Contenders that need attention get that of the question's rows.

    Raises:
        UnsupportedModelError: a family that the batched decoder does not compute.
    """
    model = batched_model(engine)
    questions = sorted(
        (
            _Question(
                engine.prompt.context_tokens(example.context),
                engine.prompt.tail_tokens(example.question),
                example.answers,
            )
            for example in examples
        ),
        key=lambda question: len(question.context),
    )
    exact, tallies = _Tally(), [_Tally() for _ in contenders]
    is_attended = any(contender.needs_attention for contender in contenders)
    for start in range(0, len(questions), BATCH):
        part = questions[start : start + BATCH]
        prefix = _exact_prefix(engine, model, part)
        _answer(engine, model, prefix, part, exact)
        caches = _exact_caches(engine, prefix, part, is_attended=is_attended)
        for contender, tally in zip(contenders, tallies, strict=True):
            coded = _coded(prefix, caches, contender, tally)
            _answer(engine, model, coded, part, tally)
        on_progress(f"{start + len(part)} of {len(questions)} questions answered")
    reference = np.array(exact.f1)
    if reference.mean() == 0:
        return ()
    tokens = round(sum(len(question.context) for question in questions) / len(questions))
    return tuple(
        _row(contender, tally, reference, (engine.name, tokens))
        for contender, tally in zip(contenders, tallies, strict=True)
    )


def _exact_prefix(engine: Engine, model: Model, questions: Sequence[_Question]) -> Prefix:
    """Head and context of every question, rounded to bf16."""
    head = engine.prompt.head_tokens
    with torch.no_grad():
        prefix = prefill(model, [[*head, *question.context] for question in questions])
    cache = prefix.cache
    keys = [key.bfloat16().to(key.dtype) for key in cache.keys]
    values = [value.bfloat16().to(value.dtype) for value in cache.values]
    return Prefix(KeyValues(keys, values, cache.filled), prefix.lengths, prefix.valid)


def _exact_caches(
    engine: Engine, prefix: Prefix, questions: Sequence[_Question], *, is_attended: bool
) -> tuple[ExactCache, ...]:
    """Every context's cache, without the template's head, and what its question looks at in it."""
    head = len(engine.prompt.head_tokens)
    return tuple(
        ExactCache(
            kv[:, :, :, head:].contiguous(),
            head,
            _attention(engine, kv, question) if is_attended else None,
        )
        for kv, question in zip(cache_rows(prefix), questions, strict=True)
    )


def _attention(engine: Engine, kv: torch.Tensor, question: _Question) -> NDArray[np.float64]:
    """The squared attention that the context's positions get from the question's rows."""
    cache = engine.new_cache(kv.shape[3])
    engine.inject(cache, 0, kv)
    attention = engine.question_attention(cache, question.tail)
    head = len(engine.prompt.head_tokens)
    return attended_importance(attention[:, :, head:]).double().numpy()


def _coded(
    prefix: Prefix, caches: Sequence[ExactCache], contender: Contender, tally: _Tally
) -> Prefix:
    """The prefix after its contexts went through a contender, whose bytes are counted."""
    cache = prefix.cache
    keys = [key.clone() for key in cache.keys]
    values = [value.clone() for value in cache.values]
    coded = Prefix(KeyValues(keys, values, cache.filled), prefix.lengths, prefix.valid)
    tally.payload_bytes += sum(code_in_place(coded, caches[0].first, caches, contender))
    tally.raw_bytes += sum(exact.kv.nbytes for exact in caches)
    return coded


def _answer(
    engine: Engine, model: Model, prefix: Prefix, questions: Sequence[_Question], tally: _Tally
) -> None:
    tails = [question.tail for question in questions]
    starts = [int(length) for length in prefix.lengths]
    answers = continued_tails(model, prefix, tails, starts, MAX_ANSWER_TOKENS)
    for question, ids in zip(questions, answers, strict=True):
        tally.f1.append(answer_f1(engine.text(ids).strip(), question.answers))


def _row(
    contender: Contender, tally: _Tally, reference: Floats, described: tuple[str, int]
) -> AnswerRow:
    f1 = np.array(tally.f1)
    ratio = ratio_interval(f1, reference)
    model, tokens = described
    return AnswerRow(
        codec=contender.name,
        origin=contender.origin,
        model=model,
        n=f1.size,
        context_tokens=tokens,
        ratio=tally.raw_bytes / tally.payload_bytes,
        f1=float(f1.mean()),
        exact_f1=float(reference.mean()),
        f1_ratio=ratio.value,
        f1_ratio_low=ratio.low,
        f1_ratio_high=ratio.high,
        p_value=paired_p_value(f1, reference),
    )

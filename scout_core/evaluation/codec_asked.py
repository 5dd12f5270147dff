"""What a question's answer loses to a KV codec, where positions are graded by that question.

Owns the measurement behind the transform's graded level: contexts go through plain groups, through
the transform at flat levels, and through it with grades from the attention of the question's rows,
as an edge has them. What counts is the KL divergence of the next-token distributions along the gold
answer. A second question about the same context, for which nothing was graded, shows what grades
take from the rest. Knows no files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch

from scout_core.codec.groups import INT4_GROUPS
from scout_core.codec.transform import TransformCodec
from scout_core.codec.transform_basis import TransformBasis
from scout_core.codec.transform_importance import grades_of
from scout_core.engine import Engine
from scout_core.evaluation.codec_coded import Coded
from scout_core.evaluation.codec_contenders import coded_through
from scout_core.evaluation.codec_probe import CacheProbe
from scout_core.evaluation.dataset import Example
from scout_core.evaluation.metrics import mean_interval
from scout_core.selection.importance import attended_importance

INT4: Final = "int4_groups"
SHORT: Final = range(100, 600)
LONG: Final = range(900, 2_300)
"""Tokens of contexts; beyond, a CPU takes minutes for each."""

OnProgress = Callable[[str], None]
Code = Callable[[torch.Tensor, torch.Tensor], Coded]
"""Takes a bf16 cache ``[layers, 2, kv_heads, positions, head_dim]`` and the importance of its
positions for the first question, ``[positions]``."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Token ids of a question, up to where its answer begins, and of the answer."""

    question: tuple[int, ...]
    answer: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AskedContext:
    """A context, the question that its positions are graded for, and perhaps another one."""

    tokens: tuple[int, ...]
    asked: Asked
    other: Asked | None = None


@dataclass(frozen=True, slots=True)
class AskedWay:
    """A named way to send a cache, which may know the importance of its positions."""

    name: str
    code: Code


@dataclass(frozen=True, slots=True)
class AskedRow:
    """One way over all contexts; KL in nats, means over contexts."""

    name: str
    contexts: int
    context_tokens: int
    """Mean."""
    ratio: float
    """Of bf16 to payload bytes."""
    kl: float
    kl_low: float
    """Ends of the 95 % bootstrap interval over contexts."""
    kl_high: float
    others: int
    """Contexts with a second question."""
    other_kl: float | None
    """Of second questions' answers; None: there are none."""


@dataclass(slots=True)
class _Tally:
    raw_bytes: int = 0
    payload_bytes: float = 0.0
    divergences: list[float] = field(default_factory=list[float])
    others: list[float] = field(default_factory=list[float])


def int4_way() -> AskedWay:
    """Plain groups, which 4-bit modes promise to be no worse than."""

    def code(kv: torch.Tensor, _importance: torch.Tensor) -> Coded:
        return coded_through(INT4_GROUPS, kv)

    return AskedWay(INT4, code)


def transform_way(basis: TransformBasis, level: int, *, graded: bool) -> AskedWay:
    """The transform at a level, with or without grades."""

    def code(kv: torch.Tensor, importance: torch.Tensor) -> Coded:
        grades = None
        if graded:
            grades = np.zeros(kv.shape[3], dtype=np.int8)
            known = kv.shape[3] - importance.numel()
            grades[known:] = grades_of(importance.numpy())
        return coded_through(TransformCodec.at(basis, level, range(kv.shape[3]), grades), kv)

    return AskedWay(f"transform_{'graded_' if graded else ''}{level:02d}", code)


def asked_contexts(
    engine: Engine, examples: Iterable[Example], *, short: int, long: int
) -> list[list[AskedContext]]:
    """Contexts with their questions, short and long ones apart; kinds that there are none of are
    left out.

    Args:
        short, long: how many at most of ``SHORT`` and of ``LONG`` tokens. Those with a second
            question come first.
    """
    questions: dict[str, list[Example]] = {}
    for example in examples:
        if example.answerable:
            questions.setdefault(example.context, []).append(example)
    kinds = {SHORT: list[AskedContext](), LONG: list[AskedContext]()}
    for text, asked in sorted(questions.items(), key=lambda item: len(item[1]) == 1):
        tokens = engine.prompt.context_tokens(text)
        for lengths, limit in ((SHORT, short), (LONG, long)):
            if len(tokens) in lengths and len(kinds[lengths]) < limit:
                first, *rest = (_asked(engine, example) for example in asked[:2])
                kinds[lengths].append(AskedContext(tokens, first, rest[0] if rest else None))
    return [contexts for contexts in kinds.values() if contexts]


def asked_rows(
    probe: CacheProbe,
    engine: Engine,
    contexts: Sequence[AskedContext],
    ways: Sequence[AskedWay],
    on_progress: OnProgress,
) -> tuple[AskedRow, ...]:
    """Measures every way on every context; rows in the ways' order.

    Args:
        probe, engine: of the same model.
    """
    tallies = [_Tally() for _ in ways]
    for index, context in enumerate(contexts):
        prefix = (*engine.prompt.head_tokens, *context.tokens)
        kv, holder = probe.prefilled(prefix)
        importance = _importance(engine, kv, context)
        asked = [context.asked, *([] if context.other is None else [context.other])]
        exact = [_likelihoods(probe, holder, kv, each) for each in asked]
        for way, tally in zip(ways, tallies, strict=True):
            coded = way.code(kv, importance)
            tally.raw_bytes += kv.nbytes
            tally.payload_bytes += coded.payload_bytes
            losses = [
                _divergence(before, _likelihoods(probe, holder, coded.decoded, each))
                for before, each in zip(exact, asked, strict=True)
            ]
            tally.divergences.append(losses[0])
            tally.others.extend(losses[1:])
        on_progress(f"context {index + 1} of {len(contexts)}, {len(context.tokens)} tokens")
    mean_tokens = round(sum(len(context.tokens) for context in contexts) / len(contexts))
    return tuple(_row(way, tally, mean_tokens) for way, tally in zip(ways, tallies, strict=True))


def _asked(engine: Engine, example: Example) -> Asked:
    question = engine.prompt.tail_tokens(example.question)
    return Asked(question, engine.prompt.plain_tokens(example.answers[0]))


def _importance(engine: Engine, kv: torch.Tensor, context: AskedContext) -> torch.Tensor:
    """Of the context's tokens for its first question, as the edge's replica reads it."""
    cache = engine.new_cache(kv.shape[3])
    engine.inject(cache, 0, kv)
    attention = engine.question_attention(cache, context.asked.question)
    return attended_importance(attention[:, :, len(engine.prompt.head_tokens) :])


def _likelihoods(probe: CacheProbe, holder: Any, kv: torch.Tensor, asked: Asked) -> torch.Tensor:
    """Log-likelihoods of what follows the question and each token of the answer."""
    tail = (*asked.question, *asked.answer)
    with torch.no_grad():
        return probe.log_likelihoods(holder, kv, tail)[len(asked.question) - 1 :]


def _divergence(exact: torch.Tensor, seen: torch.Tensor) -> float:
    return float((exact.exp() * (exact - seen)).sum(dim=-1).mean())


def _row(way: AskedWay, tally: _Tally, context_tokens: int) -> AskedRow:
    kl = mean_interval(np.array(tally.divergences))
    return AskedRow(
        name=way.name,
        contexts=len(tally.divergences),
        context_tokens=context_tokens,
        ratio=tally.raw_bytes / tally.payload_bytes,
        kl=kl.value,
        kl_low=kl.low,
        kl_high=kl.high,
        others=len(tally.others),
        other_kl=sum(tally.others) / len(tally.others) if tally.others else None,
    )

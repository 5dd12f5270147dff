"""One question with everything selectors need, and the selections they make.

Owns tokenising a row, finding the answer's tokens, and the table of selectors by name. Knows the
pair's engines; runs no answers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scout_core.engine.scoring import ScoutContext
from scout_core.evaluation.baselines_attention import mean_scores, snap_scores
from scout_core.evaluation.baselines_positions import (
    oracle_scores,
    random_scores,
    recent_scores,
    sink_window_scores,
)
from scout_core.evaluation.baselines_retrieval import bm25_scores
from scout_core.evaluation.dataset import Example
from scout_core.evaluation.quality_models import Pair
from scout_core.selection.lexical import Floats, features
from scout_core.selection.passage import pieces_of
from scout_core.selection.readout import Readout, lexical_channels
from scout_core.selection.scores import calibrated_scores
from scout_core.selection.selectors import select_runs, select_top

SCOUT = "scout"
CLOUD = "cloud"
LEXICAL = "lexical"
ORACLE = "oracle"
BM25 = "bm25"
MINILM = "minilm"
UNIFORM_MEAN = "uniform_mean"
SNAP_POOLING = "snap_pooling"
SELECTORS = frozenset(
    {
        SCOUT,
        CLOUD,
        LEXICAL,
        ORACLE,
        BM25,
        MINILM,
        UNIFORM_MEAN,
        SNAP_POOLING,
        "random",
        "recent",
        "sinks_window",
    }
)
RUN_SELECTORS = frozenset({SCOUT, CLOUD, LEXICAL})
"""Selected in runs, as the daemons do; the other baselines are taken as their sources say."""
Scores = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Case:
    """A question in the cloud's tokens."""

    example: Example
    tokens: tuple[int, ...]
    pieces: tuple[str, ...]
    tail: tuple[int, ...]
    answer_spans: tuple[tuple[int, int], ...]
    """Token ranges of every occurrence of an answer in the context."""
    words: Floats
    """Word overlap with the question, ``[n, columns]``: ``scout_core.selection.lexical``."""


def _characters(context: str, answers: Sequence[str]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for answer in answers:
        if answer.strip():
            pattern = rf"(?<!\w){re.escape(answer.strip())}(?!\w)"
            found += [match.span() for match in re.finditer(pattern, context, re.IGNORECASE)]
    return sorted(set(found))


def case_of(pair: Pair, example: Example) -> Case:
    """Tokenises one row for the cloud.

    Raises:
        EmptyInputError: an empty context or question.
    """
    prompt = pair.cloud.prompt
    spans = prompt.context_spans(example.context)
    pieces = tuple(pieces_of(example.context, spans))
    return Case(
        example=example,
        tokens=prompt.context_tokens(example.context),
        pieces=pieces,
        tail=prompt.tail_tokens(example.question),
        answer_spans=answer_ranges(example, spans),
        words=features(pieces, example.question),
    )


def answer_ranges(
    example: Example, spans: Sequence[tuple[int, int]]
) -> tuple[tuple[int, int], ...]:
    """Token ranges of every occurrence of an answer in a context whose tokens have ``spans``."""
    ranges: list[tuple[int, int]] = []
    for first, last in _characters(example.context, example.answers):
        inside = [i for i, (begin, end) in enumerate(spans) if begin < last and end > first]
        if inside:
            ranges.append((inside[0], inside[-1] + 1))
    return tuple(ranges)


def scout_scores(pair: Pair, case: Case) -> Scores:
    """The scout's scores of the cloud's tokens, as an edge with both tokenizers computes them."""
    context = ScoutContext(case.example.context, case.tokens)
    return pair.scorer.score(context, case.example.question).scores.numpy()


def lexical_scores(readout: Readout, case: Case) -> Scores:
    """Word overlap alone, weighed by a readout trained for it."""
    table = torch.from_numpy(case.words).T[None]
    valid = torch.ones((1, len(case.tokens)), dtype=torch.bool)
    nothing = torch.zeros((1, len(case.tokens), readout.hidden_size))
    with torch.no_grad():
        return readout.scores(lexical_channels(table, valid[:, None]), nothing, valid)[0].numpy()


@dataclass(frozen=True, slots=True)
class Evidence:
    """What batches computed for one question.

    ``attention`` is the cloud's, ``[layers, heads, n]`` over the context.
    """

    attention: Tensor
    scout: Scores
    embedding: Scores | None


def all_scores(pair: Pair, case: Case, evidence: Evidence, seed: int) -> dict[str, Scores]:
    """Scores ``[n]`` of every selector by name."""
    count = len(case.tokens)
    attention = evidence.attention
    found: dict[str, Scores] = {
        SCOUT: evidence.scout,
        ORACLE: oracle_scores(count, case.answer_spans),
        "random": random_scores(count, seed),
        "recent": recent_scores(count),
        "sinks_window": sink_window_scores(count),
        UNIFORM_MEAN: mean_scores(attention).numpy(),
        SNAP_POOLING: snap_scores(attention).numpy(),
        BM25: bm25_scores(case.words),
    }
    if pair.lexical is not None:
        found[LEXICAL] = lexical_scores(pair.lexical, case)
    if pair.heads is not None:
        found[CLOUD] = calibrated_scores(attention, pair.heads).numpy()
    if evidence.embedding is not None:
        found[MINILM] = evidence.embedding
    return found


def selector_names(pair: Pair, *, embedder: bool) -> frozenset[str]:
    """The selectors that ``all_scores`` gives for this pair."""
    there = {LEXICAL: pair.lexical is not None, CLOUD: pair.heads is not None, MINILM: embedder}
    return frozenset(name for name in SELECTORS if there.get(name, True))


def answer_recall(case: Case, kept: NDArray[np.int64]) -> float | None:
    """Share of the answer's tokens kept, of its best-kept occurrence; None without one."""
    if not case.answer_spans:
        return None
    chosen = np.zeros(len(case.tokens), dtype=np.bool_)
    chosen[kept] = True
    return max(float(chosen[begin:end].mean()) for begin, end in case.answer_spans)


def overlap(kept: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """Share of ``kept`` that is in ``other`` (the paper's figure: 82 to 83 %)."""
    return len(np.intersect1d(kept, other)) / max(len(kept), 1)


def selections(
    scores: Mapping[str, Scores], retentions: Sequence[float]
) -> dict[tuple[str, float], NDArray[np.int64]]:
    """Kept positions by (selector, retention), ascending."""
    return {
        (name, retention): (select_runs if name in RUN_SELECTORS else select_top)(
            torch.from_numpy(np.ascontiguousarray(values)), retention
        )
        for name, values in scores.items()
        for retention in retentions
    }

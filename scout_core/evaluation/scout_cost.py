"""What a scout request costs an edge host, from one run on one host.

Two ratios. *Scoring*: everything a request does beside the scout's own pass (tokenising, watching
attention, word overlap, readout, selection, index coding), relative to a bare prefill of the very
tokens that the scout runs, in passes of the same size. *Request*: the whole of it, relative to the
cloud model's prefill of head and context on the same host, which is what the edge would compute for
a KV mode. The stages take turns in every round, so that a busy moment touches all of them alike;
figures are medians.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from scout_core.codec.positions import encode_positions
from scout_core.engine import Engine
from scout_core.engine.scoring import ScoutContext, ScoutScorer
from scout_core.engine.trained_scout import PASS_TOKENS, TRAINED, scout_segments
from scout_core.selection.selectors import select_runs

LENGTHS: Final = (170, 350, 700)
"""Context tokens; 170 is the source paper's usual context."""
ROUNDS: Final = 7
RETENTION: Final = 0.25
SCORING_LIMIT: Final = 0.10
"""Most that scoring may add to the scout's prefill."""
REQUEST_LIMIT: Final = 0.45
"""Most that a request may cost, of the cloud model's prefill."""


@dataclass(frozen=True, slots=True)
class ScoutCostRow:
    """Median seconds at one length, and the two ratios."""

    context_tokens: int
    question_tokens: int
    cloud_prefill_s: float
    scout_prefill_s: float
    request_s: float
    scoring_share: float
    """Of the request beyond the scout's bare prefill; the limit is 0.10."""
    request_share: float
    """Of the cloud model's prefill; the limit is 0.45."""


def scout_costs(
    cloud: Engine, scout: Engine, scorer: ScoutScorer, text: str, question: str
) -> list[ScoutCostRow]:
    """A row per length that ``text`` has."""
    tokens = cloud.prompt.context_tokens(text)
    spans = cloud.prompt.context_spans(text)
    rows: list[ScoutCostRow] = []
    for length in LENGTHS:
        if length <= len(tokens):
            part = text[: spans[length - 1][1]]
            rows.append(_row(cloud, scout, scorer, part, question))
    return rows


def _row(
    cloud: Engine, scout: Engine, scorer: ScoutScorer, text: str, question: str
) -> ScoutCostRow:
    context = cloud.prompt.context_tokens(text)
    own = _scout_tokens(scout, scorer, text, question)

    def request() -> None:
        tokens = scout.prompt.context_tokens(text)
        scored = scorer.score(ScoutContext(text, tokens), question)
        encode_positions(select_runs(scored.scores, RETENTION), scored.scores.shape[0])

    prefix = (*cloud.prompt.head_tokens, *context)
    whole_s, bare_s, request_s = _medians_s(
        lambda: cloud.prefill(cloud.new_cache(len(prefix)), prefix),
        lambda: scout.prefill_states(scout.new_cache(len(own)), own, PASS_TOKENS),
        request,
    )
    return ScoutCostRow(
        context_tokens=len(context),
        question_tokens=len(cloud.prompt.plain_tokens(question)),
        cloud_prefill_s=whole_s,
        scout_prefill_s=bare_s,
        request_s=request_s,
        scoring_share=request_s / bare_s - 1,
        request_share=request_s / whole_s,
    )


def _scout_tokens(scout: Engine, scorer: ScoutScorer, text: str, question: str) -> tuple[int, ...]:
    """The tokens that one request runs through the scout."""
    context = scout.prompt.context_tokens(text)
    if scorer.selector_name == TRAINED:
        head, tail = scout_segments(scout.prompt, question)
        return (*head, *context, *tail)
    return (*scout.prompt.head_tokens, *context, *scout.prompt.tail_tokens(question))


def _medians_s(*stages: Callable[[], object]) -> Sequence[float]:
    """Median seconds of every stage over ``ROUNDS`` rounds, after one that is not counted."""
    seconds: list[list[float]] = [[] for _ in stages]
    for measured in range(-1, ROUNDS):
        for stage, found in zip(stages, seconds, strict=True):
            started_s = time.perf_counter()
            stage()
            if measured >= 0:
                found.append(time.perf_counter() - started_s)
    return [median(found) for found in seconds]

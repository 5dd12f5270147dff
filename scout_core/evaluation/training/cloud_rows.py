"""The rows that train the cloud adapter: an answer after a passage, whole or in part.

Owns the two executions of a selection as training rows (*sparse*: only the kept tokens are there,
at their original positions; *evict*: the passage is there whole, and what follows it sees the kept
columns alone) and how positions to keep are drawn, of a scout's scores where there are any. Knows
no weights.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scout_core.evaluation.training.corpus import Item
from scout_core.evaluation.training.prompts import SYSTEM, Prompter
from scout_core.evaluation.training.readout import pointer_mass
from scout_core.selection import select_runs
from scout_core.selection.lexical import FEATURES

EVICT_LIMIT = 1200
"""Longest passage of an evict row, in tokens: its mask is quadratic."""
LEAST_KEPT, MOST_KEPT = 0.08, 0.6
"""Range of the share of a passage that is kept."""
SCORE_NOISE = 0.25
"""Added to a scout's scores, in their deviations, so that a row is not always the same."""
EVICTED_BUT_KEPT = 0.5
"""How often an evict row gets the answer back that its selection lost; otherwise the later
positions, which saw it, have to do."""
_DENSITY = FEATURES.index("density_5")


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence; the loss is on the tokens from ``target_from`` on."""

    ids: list[int]
    positions: list[int]
    target_from: int
    teacher: Tensor | None = None
    """Base model's normed hidden states ``[targets, hidden]`` where the row is chat."""
    context_at: tuple[int, int] = (0, 0)
    """Columns of the passage."""
    kept: list[int] | None = None
    """Columns of the passage that what follows it sees; None: all (no eviction)."""
    mass: NDArray[np.float32] | None = None
    """Where the answer is, as a distribution over ``seen``."""

    @property
    def seen(self) -> Sequence[int]:
        """Columns of the passage that the question sees."""
        return range(*self.context_at) if self.kept is None else self.kept


@dataclass(frozen=True, slots=True)
class Selections:
    """How often a question is answered from a part of its passage, and who chooses that part."""

    sparse_share: float
    evict_share: float = 0.0
    scores: Mapping[int, NDArray[np.float16]] = field(
        default_factory=dict[int, NDArray[np.float16]]
    )
    """A scout's scores ``[n]`` by the identity of the item; others are chosen by their words."""

    def kept(self, item: Item, generator: random.Random, *, answer_kept: bool) -> list[int]:
        """Sorted context indices; the answer's neighbourhood among them if ``answer_kept``."""
        scores = self.scores.get(id(item))
        if scores is None:
            return gapped(item, generator, answer_kept=answer_kept)
        return chosen(item, scores, generator, answer_kept=answer_kept)


def _neighbourhood(item: Item, generator: random.Random) -> tuple[int, int, int]:
    """One occurrence of the answer, and how far beside it tokens are kept as well."""
    begin, end = generator.choices(item.spans, item.weights)[0]
    return begin, end, generator.randint(2, 8)


def _noise(generator: random.Random, count: int) -> NDArray[np.float64]:
    return np.random.default_rng(generator.getrandbits(32)).normal(size=count)


def gapped(item: Item, generator: random.Random, *, answer_kept: bool = True) -> list[int]:
    """Context indices a selector might keep: likely tokens by the question's words."""
    count = len(item.context)
    wanted = max(6, round(count * generator.uniform(LEAST_KEPT, MOST_KEPT)))
    density = item.lexical[:, _DENSITY].astype(np.float32)
    noise = _noise(generator, count // 6 + 2)
    scores = density / (float(density.std()) + 1e-3) + 0.8 * np.repeat(noise, 6)[:count]
    if item.spans and answer_kept:
        begin, end, reach = _neighbourhood(item, generator)
        scores[max(0, begin - reach) : end + reach] += 50.0
    return sorted(np.argsort(-scores, kind="stable")[:wanted].tolist())


def chosen(
    item: Item, scores: NDArray[np.float16], generator: random.Random, *, answer_kept: bool
) -> list[int]:
    """Context indices that the engine would keep of ``scores`` [n], slightly disturbed.

    Where that loses a part of the answer and ``answer_kept``, its neighbourhood comes on top.
    """
    count = len(item.context)
    retention = generator.uniform(LEAST_KEPT, MOST_KEPT)
    real = scores.astype(np.float32)
    disturbed = real + SCORE_NOISE * float(real.std()) * _noise(generator, count)
    kept = set(select_runs(torch.from_numpy(disturbed), retention).tolist())
    if item.spans and answer_kept:
        begin, end, reach = _neighbourhood(item, generator)
        if not kept.issuperset(range(begin, end)):
            kept |= set(range(max(0, begin - reach), min(count, end + reach)))
    return sorted(kept)


def answer_row(
    item: Item, prompter: Prompter, generator: random.Random, selections: Selections
) -> Row:
    """A training row of one question."""
    head = prompter.head() if generator.random() < 0.85 else prompter.head(SYSTEM)
    whole = list(range(len(item.context)))
    drawn = generator.random()
    found = bool(item.spans) or not item.answers
    sparse = found and drawn < selections.sparse_share
    evict = found and not sparse and drawn < selections.sparse_share + selections.evict_share
    evict = evict and len(whole) <= EVICT_LIMIT
    kept = whole
    if sparse or evict:
        answer_kept = sparse or generator.random() < EVICTED_BUT_KEPT
        kept = selections.kept(item, generator, answer_kept=answer_kept)
    there = whole if evict else kept
    prefix = [*head, *(item.context[index] for index in there)]
    tail, answer = prompter.tail(item.question), prompter.answer(item.target)
    after = [*tail, *answer]
    start = len(head) + len(whole)
    places = [*range(len(head)), *(len(head) + index for index in there)]
    mass = None
    if item.spans:
        part = pointer_mass(item)[kept]
        mass = part / part.sum() if part.sum() > 0 else None
    return Row(
        ids=[*prefix, *after],
        positions=[*places, *range(start, start + len(after))],
        target_from=len(prefix) + len(tail),
        context_at=(len(head), len(prefix)),
        kept=[len(head) + index for index in kept] if evict else None,
        mass=mass,
    )

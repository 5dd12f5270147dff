"""``scout eval quality``: answers under every mode, selector, retention and execution.

Owns the run: which questions and ways are still to be measured, and what they share. One prefill
of a passage serves every question and every selection of it; scores are computed in batches; equal
selections are answered once. Questions are taken in the order they were drawn, so that a study
that is stopped has measured a fair sample.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from scout_core.errors import RequestError
from scout_core.evaluation.baselines_retrieval import Passage, SentenceEmbedder, embedding_scores
from scout_core.evaluation.dataset import Example
from scout_core.evaluation.metrics import answer_f1, exact_match
from scout_core.evaluation.quality_answers import Prefix, prefill_in_passes, question_attention
from scout_core.evaluation.quality_batches import Budget, budget_for, by_length
from scout_core.evaluation.quality_case import (
    CLOUD,
    MINILM,
    Case,
    Evidence,
    all_scores,
    answer_recall,
    case_of,
    overlap,
    selections,
    selector_names,
)
from scout_core.evaluation.quality_codecs import NO_CODEC, contender_of
from scout_core.evaluation.quality_coded import CodedJob, coded_answers
from scout_core.evaluation.quality_decoding import Job, Slice, answers_of
from scout_core.evaluation.quality_models import Pair
from scout_core.evaluation.quality_records import Outcome, Record, Records, question_key
from scout_core.evaluation.quality_scouting import batched_scout_scores
from scout_core.evaluation.quality_table import QualityRow, table
from scout_core.evaluation.quality_ways import (
    KV_SELECT_RETENTION,
    SPARSE_SELECTORS,
    WHOLE,
    Way,
    compute,
    kv_ways,
    payload_bytes,
    selected_ways,
)
from scout_core.modes import Execution, Mode
from scout_core.selection.importance import attended_importance

Kept = NDArray[np.int64]
Found = Callable[[Sequence[tuple[str, Record]]], None]
"""Gets the records of a slice as soon as they are whole."""
Progress = Callable[[int, int], bool]
"""Gets (questions done, all); the study ends early where it says False."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure.

    Args:
        selectors: only these; None runs all that the pair has.
        answers: False measures recall, overlap and cost of the selections and decodes nothing.
    """

    retentions: tuple[float, ...]
    seed: int = 0
    kv_modes: bool = True
    selectors: frozenset[str] | None = None
    answers: bool = True


@dataclass(frozen=True, slots=True)
class _Choice:
    """One question of a slice in one way."""

    question: int
    way: Way
    kept: Kept
    best: Kept | None
    """The cloud's own choice of as many."""
    importance: NDArray[np.float64]
    """``[context tokens]``, of each for the question."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """What a question makes of its context: kept positions by (selector, retention), and the
    importance of all ``[context tokens]``."""

    kept: Mapping[tuple[str, float], Kept]
    importance: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Answer:
    """A text, or None where nothing was decoded; and the bytes of the coded cache behind it."""

    text: str | None
    cache_bytes: int = 0


_UNANSWERED = _Answer(None)


class Study:
    """Runs a plan over questions and keeps their records.

    Args:
        embedder: the sentence-embedding baseline, or None to leave it out.
        records: of earlier runs; what they hold is not measured again.

    Raises:
        RequestError: the plan names a selector that is unknown or that this pair cannot have.
    """

    def __init__(
        self,
        pair: Pair,
        plan: Plan,
        embedder: SentenceEmbedder | None,
        records: Records | None = None,
    ) -> None:
        there = selector_names(pair, embedder=embedder is not None)
        self._selectors = there if plan.selectors is None else plan.selectors
        if not self._selectors <= there:
            missing = ", ".join(sorted(self._selectors - there))
            raise RequestError(
                f"No selector {missing} here; there are {', '.join(sorted(there))}. 'cloud' needs "
                "a profile, 'lexical' a bundled scout, 'minilm' the evaluation extra.",
            )
        self._pair = pair
        self._plan = plan
        self._embedder = embedder
        self._budget: Budget = budget_for(
            pair.model.device.type, pair.cloud.geometry.bf16_bytes(1) * _width(pair)
        )
        self._head = tuple(pair.cloud.prompt.head_tokens)
        self.records: Records = {} if records is None else records

    def run(self, examples: Sequence[Example], progress: Progress, found: Found) -> None:
        """Measures every example in every planned way that its record lacks."""
        todo = [example for example in examples if self._missing(example)]
        done = len(examples) - len(todo)
        cases = (case_of(self._pair, example) for example in _by_context(todo))
        for part in self._sliced(cases):
            records = self._measured(part)
            found(records)
            done += len(part)
            if not progress(done, len(examples)):
                return

    def rows(self) -> tuple[QualityRow, ...]:
        """The table of all records, full context first."""
        return table(self.records.values())

    def unmeasured(self, examples: Sequence[Example]) -> int:
        """How many of these examples lack a planned way."""
        return sum(bool(self._missing(example)) for example in examples)

    @property
    def ways(self) -> list[Way]:
        """Every way of the plan, in the table's order."""
        ways = [WHOLE]
        for selector in sorted(self._selectors):
            for retention in self._plan.retentions:
                ways.append(Way(Mode.SCOUT, Execution.EVICT, retention, selector))
                if selector in SPARSE_SELECTORS:
                    ways.append(Way(Mode.SCOUT, Execution.SPARSE, retention, selector))
        if self._plan.kv_modes and self._plan.answers:
            ways += kv_ways(self._pair.basis)
            if CLOUD in self._selectors and KV_SELECT_RETENTION in self._plan.retentions:
                ways += selected_ways(self._pair.basis)
        return ways

    def _missing(self, example: Example) -> list[Way]:
        record = self.records.get(question_key(example))
        outcomes: Mapping[Way, Outcome] = {} if record is None else record.outcomes

        def lacking(way: Way) -> bool:
            outcome = outcomes.get(way)
            return outcome is None or (self._plan.answers and outcome.f1 is None)

        return [way for way in self.ways if lacking(way)]

    def _sliced(self, cases: Iterable[Case]) -> Iterable[list[Case]]:
        """Slices in the given order whose padded size is within the budget."""
        current: list[Case] = []
        longest = 0
        for case in cases:
            longest = max(longest, len(case.tokens) + len(self._head))
            if current and longest * (len(current) + 1) > self._budget.slice_tokens:
                yield current
                current, longest = [], len(case.tokens) + len(self._head)
            current.append(case)
        if current:
            yield current

    @torch.no_grad()
    def _measured(self, cases: list[Case]) -> list[tuple[str, Record]]:
        part = Slice(self._pair.model, self._head, cases, self._prefilled(cases))
        readings = self._readings(part)
        choices = [
            self._choice(place, way, case, readings[place])
            for place, case in enumerate(cases)
            for way in self._missing(case.example)
        ]
        answers = [_UNANSWERED] * len(choices)
        if self._plan.answers:
            answers = self._answers(part, choices)
        touched: dict[str, Record] = {}
        for choice, answer in zip(choices, answers, strict=True):
            case = cases[choice.question]
            key = question_key(case.example)
            fresh = Record(case.example.source, len(case.tokens))
            record = touched.setdefault(key, self.records.setdefault(key, fresh))
            record.outcomes[choice.way] = self._outcome(choice, case, answer)
        return list(touched.items())

    def _prefilled(self, cases: Sequence[Case]) -> Prefix:
        """Head and context of every case; a context that several share is run once."""
        place = {context: i for i, context in enumerate(dict.fromkeys(c.tokens for c in cases))}
        rows = [[*self._head, *tokens] for tokens in place]
        found = prefill_in_passes(self._pair.model, rows, self._budget.pass_tokens)
        return found if len(rows) == len(cases) else found.rows([place[c.tokens] for c in cases])

    def _readings(self, part: Slice) -> list[_Reading]:
        """What each case's question makes of its context."""
        cases = part.cases
        scout = batched_scout_scores(self._pair, cases, self._budget.pass_tokens)
        embedded = None
        if self._embedder is not None and MINILM in self._selectors:
            passages = [Passage(case.example.question, case.pieces) for case in cases]
            embedded = embedding_scores(self._embedder, passages)
        found: dict[int, _Reading] = {}
        wanted = {*self._selectors, CLOUD}
        for index in by_length([len(c.tokens) for c in cases], self._budget.pass_tokens):
            seen = question_attention(
                self._pair.model,
                part.full.rows(index),
                [cases[i].tail for i in index],
                [part.starts[i] for i in index],
            )
            for place, attention in zip(index, seen, strict=True):
                case = cases[place]
                of_context = attention[:, :, len(self._head) :]
                evidence = Evidence(
                    of_context,
                    scout[place],
                    None if embedded is None else embedded[place],
                )
                seed = zlib.crc32(question_key(case.example).encode()) ^ self._plan.seed
                scores = all_scores(self._pair, case, evidence, seed)
                mine = {name: row for name, row in scores.items() if name in wanted}
                found[place] = _Reading(
                    selections(mine, self._plan.retentions),
                    attended_importance(of_context).double().numpy(),
                )
        return [found[place] for place in range(len(cases))]

    def _choice(self, place: int, way: Way, case: Case, reading: _Reading) -> _Choice:
        weights, kept = reading.importance, reading.kept
        if way.retention == 1.0:
            return _Choice(place, way, np.arange(len(case.tokens)), None, weights)
        best = None if way.selector == CLOUD else kept.get((CLOUD, way.retention))
        return _Choice(place, way, kept[way.selector, way.retention], best, weights)

    def _answers(self, part: Slice, choices: Sequence[_Choice]) -> list[_Answer]:
        """The answer of every choice, in their order."""
        found: dict[tuple[int, Way], _Answer] = {}
        plain = [choice for choice in choices if choice.way.codec == NO_CODEC]
        jobs = [Job(choice.question, choice.way.execution, choice.kept) for choice in plain]
        answers = answers_of(part, jobs, self._budget)
        for choice, ids in zip(plain, answers, strict=True):
            found[choice.question, choice.way] = _Answer(self._text(ids))
        for way in dict.fromkeys(c.way for c in choices if c.way.codec != NO_CODEC):
            mine = [choice for choice in choices if choice.way == way]
            sent = [CodedJob(c.question, c.kept, c.importance) for c in mine]
            contender = contender_of(way.codec, self._pair.basis)
            read = coded_answers(part, sent, contender, self._budget)
            for choice, answer in zip(mine, read, strict=True):
                text = self._text(answer.ids)
                found[choice.question, way] = _Answer(text, answer.cache_bytes)
        return [found[choice.question, choice.way] for choice in choices]

    def _text(self, ids: Sequence[int]) -> str:
        return self._pair.cloud.text(ids).strip()

    def _outcome(self, choice: _Choice, case: Case, answer: _Answer) -> Outcome:
        golds, text = case.example.answers, answer.text
        sent = payload_bytes(self._pair, choice.way, case, choice.kept, answer.cache_bytes)
        weights = 0 if self._embedder is None else self._embedder.parameters
        cost = compute(self._pair, choice.way, case, len(choice.kept), weights)
        return Outcome(
            f1=None if text is None else answer_f1(text, golds),
            em=None if text is None else exact_match(text, golds),
            recall=answer_recall(case, choice.kept),
            overlap=None if choice.best is None else overlap(choice.kept, choice.best),
            payload_bytes=sent,
            edge_compute=cost.edge,
            cloud_compute=cost.cloud,
        )


def _width(pair: Pair) -> int:
    """Cache bytes as held, relative to bf16's."""
    return pair.model.weights.embedding.element_size() // torch.bfloat16.itemsize


def _by_context(examples: Sequence[Example]) -> list[Example]:
    """The given order, with the questions of one passage behind its first."""
    groups: dict[str, list[Example]] = {}
    for example in examples:
        groups.setdefault(example.context, []).append(example)
    return [example for group in groups.values() for example in group]

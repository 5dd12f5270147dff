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

from scout_core.codec.registry import codec_by_name
from scout_core.errors import RequestError
from scout_core.evaluation.baselines_retrieval import Passage, SentenceEmbedder, embedding_scores
from scout_core.evaluation.dataset import Example
from scout_core.evaluation.metrics import answer_f1, exact_match
from scout_core.evaluation.quality_answers import (
    Prefix,
    continued_tails,
    evicted,
    prefill_in_passes,
    question_attention,
)
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
from scout_core.evaluation.quality_decoder import KeyValues
from scout_core.evaluation.quality_decoding import MAX_ANSWER_TOKENS, Job, Slice, answers_of
from scout_core.evaluation.quality_models import Pair
from scout_core.evaluation.quality_records import Outcome, Record, Records, question_key
from scout_core.evaluation.quality_scouting import batched_scout_scores
from scout_core.evaluation.quality_table import QualityRow, table
from scout_core.evaluation.quality_ways import (
    KV_CODECS,
    KV_SELECT,
    SELECTED_CODEC,
    SPARSE_SELECTORS,
    WHOLE,
    Way,
    compute,
    kv_way,
    payload_bytes,
)
from scout_core.modes import Execution, Mode

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

    def _planned(self) -> list[Way]:
        """Every way of the plan, in the table's order."""
        ways = [WHOLE]
        for selector in sorted(self._selectors):
            for retention in self._plan.retentions:
                ways.append(Way(Mode.SCOUT, Execution.EVICT, retention, selector))
                if selector in SPARSE_SELECTORS:
                    ways.append(Way(Mode.SCOUT, Execution.SPARSE, retention, selector))
        if self._plan.kv_modes and self._plan.answers:
            ways += [kv_way(mode) for mode in KV_CODECS]
            kept = KV_SELECT.retention in self._plan.retentions
            ways += [KV_SELECT] if CLOUD in self._selectors and kept else []
        return ways

    def _missing(self, example: Example) -> list[Way]:
        record = self.records.get(question_key(example))
        outcomes: Mapping[Way, Outcome] = {} if record is None else record.outcomes

        def lacking(way: Way) -> bool:
            outcome = outcomes.get(way)
            return outcome is None or (self._plan.answers and outcome.f1 is None)

        return [way for way in self._planned() if lacking(way)]

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
        chosen = self._selections(part)
        choices = [
            self._choice(place, way, case, chosen[place])
            for place, case in enumerate(cases)
            for way in self._missing(case.example)
        ]
        texts = self._texts(part, choices) if self._plan.answers else [None] * len(choices)
        touched: dict[str, Record] = {}
        for choice, text in zip(choices, texts, strict=True):
            case = cases[choice.question]
            key = question_key(case.example)
            fresh = Record(case.example.source, len(case.tokens))
            record = touched.setdefault(key, self.records.setdefault(key, fresh))
            record.outcomes[choice.way] = self._outcome(choice, case, text)
        return list(touched.items())

    def _prefilled(self, cases: Sequence[Case]) -> Prefix:
        """Head and context of every case; a context that several share is run once."""
        place = {context: i for i, context in enumerate(dict.fromkeys(c.tokens for c in cases))}
        rows = [[*self._head, *tokens] for tokens in place]
        found = prefill_in_passes(self._pair.model, rows, self._budget.pass_tokens)
        return found if len(rows) == len(cases) else found.rows([place[c.tokens] for c in cases])

    def _selections(self, part: Slice) -> list[dict[tuple[str, float], Kept]]:
        """Per case the kept positions by (selector, retention)."""
        cases = part.cases
        scout = batched_scout_scores(self._pair, cases, self._budget.pass_tokens)
        embedded = None
        if self._embedder is not None and MINILM in self._selectors:
            passages = [Passage(case.example.question, case.pieces) for case in cases]
            embedded = embedding_scores(self._embedder, passages)
        found: list[dict[tuple[str, float], Kept]] = [{} for _ in cases]
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
                evidence = Evidence(
                    attention[:, :, len(self._head) :],
                    scout[place],
                    None if embedded is None else embedded[place],
                )
                seed = zlib.crc32(question_key(case.example).encode()) ^ self._plan.seed
                scores = all_scores(self._pair, case, evidence, seed)
                mine = {name: row for name, row in scores.items() if name in wanted}
                found[place] = selections(mine, self._plan.retentions)
        return found

    def _choice(
        self, place: int, way: Way, case: Case, chosen: Mapping[tuple[str, float], Kept]
    ) -> _Choice:
        if way.retention == 1.0:
            return _Choice(place, way, np.arange(len(case.tokens)), None)
        best = None if way.selector == CLOUD else chosen.get((CLOUD, way.retention))
        return _Choice(place, way, chosen[way.selector, way.retention], best)

    def _texts(self, part: Slice, choices: Sequence[_Choice]) -> list[str]:
        """The answer of every choice, in their order."""
        texts: dict[tuple[int, Way], str] = {}
        plain = [choice for choice in choices if choice.way.mode is Mode.SCOUT]
        jobs = [Job(choice.question, choice.way.execution, choice.kept) for choice in plain]
        answers = answers_of(part, jobs, self._budget)
        for choice, ids in zip(plain, answers, strict=True):
            texts[choice.question, choice.way] = self._pair.cloud.text(ids).strip()
        for way in dict.fromkeys(choice.way for choice in choices):
            if way.mode is not Mode.SCOUT:
                mine = [choice for choice in choices if choice.way == way]
                for choice, ids in zip(mine, self._coded_answers(part, mine), strict=True):
                    texts[choice.question, way] = self._pair.cloud.text(ids).strip()
        return [texts[choice.question, choice.way] for choice in choices]

    def _coded_answers(self, part: Slice, choices: Sequence[_Choice]) -> list[list[int]]:
        """Answers of one KV mode, from caches that went through its codec."""
        mode = choices[0].way.mode
        codec_name = KV_CODECS.get(mode, SELECTED_CODEC)
        start = len(self._head)
        answers: list[list[int]] = [[] for _ in choices]
        lengths = [len(c.kept) + len(part.cases[c.question].tail) for c in choices]
        room = MAX_ANSWER_TOKENS + max(len(case.tail) for case in part.cases)
        for index in by_length([n + start + room for n in lengths], self._budget.decode_tokens):
            mine = [choices[i] for i in index]
            columns = [[*range(start), *(start + choice.kept).tolist()] for choice in mine]
            owners = [choice.question for choice in mine]
            prefix = evicted(part.full, columns, owners, room)
            self._code(prefix, codec_name)
            tails = [part.cases[owner].tail for owner in owners]
            starts = [part.starts[owner] for owner in owners]
            found = continued_tails(part.model, prefix, tails, starts, MAX_ANSWER_TOKENS)
            for place, ids in zip(index, found, strict=True):
                answers[place] = ids
        return answers

    def _code(self, prefix: Prefix, codec_name: str) -> None:
        """Sends the context of a cache through a codec, in place; the head is never coded."""
        codec = codec_by_name(codec_name)
        start = len(self._head)
        cache: KeyValues = prefix.cache
        layers = list(zip(cache.keys, cache.values, strict=True))
        for row, length in enumerate(prefix.lengths.tolist()):
            pairs = [
                torch.stack((k[row, :, start:length], v[row, :, start:length])) for k, v in layers
            ]
            kv = torch.stack(pairs).cpu()
            read = codec.decode(codec.encode(kv), self._pair.cloud.geometry, length - start)
            read = read.to(layers[0][0])
            for layer, (key, value) in enumerate(layers):
                key[row, :, start:length] = read[layer, 0]
                value[row, :, start:length] = read[layer, 1]

    def _outcome(self, choice: _Choice, case: Case, text: str | None) -> Outcome:
        golds = case.example.answers
        weights = 0 if self._embedder is None else self._embedder.parameters
        cost = compute(self._pair, choice.way, case, len(choice.kept), weights)
        return Outcome(
            f1=None if text is None else answer_f1(text, golds),
            em=None if text is None else exact_match(text, golds),
            recall=answer_recall(case, choice.kept),
            overlap=None if choice.best is None else overlap(choice.kept, choice.best),
            payload_bytes=payload_bytes(self._pair, choice.way, case, choice.kept),
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

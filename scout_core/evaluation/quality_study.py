"""``scout eval quality``: answers under every mode, selector, retention and execution.

Owns the run and its rows. One prefill of a question serves every selection of it. The F1 of each
way is compared with the same model on the whole context, question by question.

Compute is given relative to the cloud model's full pass over head, context and tail of the same
question, in layers times tokens (attention's quadratic part, below 5 % under 2k tokens, left out).
Payload: the bytes the uplink carries when the cloud has seen nothing of the context: token ids the
execution needs and the coded selection; for KV modes the coded cache. The question is the same for
all and not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from scout_core.codec.positions import encode_positions
from scout_core.codec.registry import codec_by_name
from scout_core.codec.tokens import token_bytes
from scout_core.evaluation.baselines_retrieval import SentenceEmbedder
from scout_core.evaluation.dataset import Example
from scout_core.evaluation.metrics import (
    answer_f1,
    exact_match,
    mean_interval,
    paired_p_value,
    ratio_interval,
)
from scout_core.evaluation.quality_answers import (
    Prefix,
    evicted,
    greedy_answers,
    prefill,
    question_attention,
)
from scout_core.evaluation.quality_case import (
    CLOUD,
    LEXICAL,
    SCOUT,
    Case,
    all_scores,
    answer_recall,
    case_of,
    overlap,
    selections,
)
from scout_core.evaluation.quality_decoder import KeyValues
from scout_core.evaluation.quality_models import Pair
from scout_core.modes import Execution, Mode

MAX_ANSWER_TOKENS = 32
SPARSE_SELECTORS = frozenset({SCOUT, CLOUD, LEXICAL})
"""Selectors that are also run sparse."""
KV_SELECT_RETENTION = 0.5
SLICE_TOKENS = {"cpu": 5_000, "cuda": 200_000}
"""Context tokens of one batch: bounds the cache held (23 kB a token for the bundled pair)."""
FULL = "all"

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Way:
    """One row's way of answering."""

    mode: Mode
    execution: Execution
    retention: float
    selector: str


@dataclass(slots=True)
class Tally:
    """Per-question figures of one way."""

    f1: list[float] = field(default_factory=list[float])
    em: list[float] = field(default_factory=list[float])
    recall: list[float] = field(default_factory=list[float])
    overlap: list[float] = field(default_factory=list[float])
    payload_bytes: list[int] = field(default_factory=list[int])
    edge_compute: list[float] = field(default_factory=list[float])
    cloud_compute: list[float] = field(default_factory=list[float])


@dataclass(frozen=True, slots=True)
class QualityRow:
    """One row of the table; see the module's docstring for payload and compute."""

    mode: str
    execution: str
    retention: float
    selector: str
    n: int
    f1: float
    f1_low: float
    f1_high: float
    em: float
    ratio: float
    ratio_low: float
    ratio_high: float
    p_value: float
    answer_recall: float | None
    overlap: float | None
    payload_bytes: float
    edge_compute: float
    cloud_compute: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure."""

    retentions: tuple[float, ...]
    seed: int = 0
    kv_modes: bool = True
    selectors: frozenset[str] | None = None
    """Only these; None runs all."""


def _sliced(cases: Sequence[Case], budget: int) -> Iterable[list[Case]]:
    ordered = sorted(cases, key=lambda case: len(case.tokens))
    current: list[Case] = []
    for case in ordered:
        if current and len(case.tokens) * (len(current) + 1) > budget:
            yield current
            current = []
        current.append(case)
    if current:
        yield current


class Study:
    """Runs a plan over cases and keeps the tallies.

    Args:
        embedder: the sentence-embedding baseline, or None to leave it out.
    """

    def __init__(self, pair: Pair, plan: Plan, embedder: SentenceEmbedder | None) -> None:
        self._pair = pair
        self._plan = plan
        self._embedder = embedder
        self.tallies: dict[Way, Tally] = {}
        self.lengths: list[int] = []

    def run(self, examples: Sequence[Example], progress: Callable[[int, int], None]) -> None:
        """Answers every example in every way; ``progress(done, all)`` after each batch."""
        cases = [case_of(self._pair, example) for example in examples]
        done = 0
        for part in _sliced(cases, SLICE_TOKENS[self._pair.model.device.type]):
            self._batch(part)
            done += len(part)
            progress(done, len(cases))

    def _batch(self, cases: list[Case]) -> None:
        head = list(self._pair.cloud.prompt.head_tokens)
        self.lengths += [len(case.tokens) for case in cases]
        with torch.no_grad():
            full = prefill(self._pair.model, [[*head, *case.tokens] for case in cases])
        tails = [case.tail for case in cases]
        starts = [len(head) + len(case.tokens) for case in cases]
        attention = question_attention(self._pair.model, full, tails, starts)
        seed = self._plan.seed + len(self.lengths)
        chosen = [
            selections(
                all_scores(self._pair, case, seen[:, :, len(head) :], self._embedder, seed + place),
                self._plan.retentions,
            )
            for place, (case, seen) in enumerate(zip(cases, attention, strict=True))
        ]
        whole = [np.arange(len(case.tokens)) for case in cases]
        self._answer(Way(Mode.SCOUT, Execution.EVICT, 1.0, FULL), full, cases, whole)
        wanted = self._plan.selectors
        for selector, retention in chosen[0]:
            if wanted is not None and selector not in wanted:
                continue
            kept = [selection[selector, retention] for selection in chosen]
            best = [selection.get((CLOUD, retention)) for selection in chosen]
            for execution in Execution:
                if execution is Execution.SPARSE and selector not in SPARSE_SELECTORS:
                    continue
                way = Way(Mode.SCOUT, execution, retention, selector)
                self._answer(way, self._selected(way, full, cases, kept), cases, kept)
                if selector != CLOUD:
                    self.tallies[way].overlap += [
                        overlap(mine, theirs)
                        for mine, theirs in zip(kept, best, strict=True)
                        if theirs is not None
                    ]
        if self._plan.kv_modes:
            self._kv_modes(full, cases, whole, chosen)

    def _kv_modes(
        self,
        full: Prefix,
        cases: list[Case],
        whole: list[NDArray[np.int64]],
        chosen: list[dict[tuple[str, float], NDArray[np.int64]]],
    ) -> None:
        for mode, codec in (
            (Mode.KV_BF16, "raw_bf16"),
            (Mode.KV_INT8, "int8_groups"),
            (Mode.KV_INT4, "int4_groups"),
        ):
            way = Way(mode, Execution.EVICT, 1.0, FULL)
            self._answer(way, self._coded(full, codec), cases, whole)
        if (CLOUD, KV_SELECT_RETENTION) in chosen[0]:
            kept = [selection[CLOUD, KV_SELECT_RETENTION] for selection in chosen]
            way = Way(Mode.KV_SELECT, Execution.EVICT, KV_SELECT_RETENTION, CLOUD)
            prefix = self._coded(self._selected(way, full, cases, kept), "int8_groups")
            self._answer(way, prefix, cases, kept)

    def _selected(
        self, way: Way, full: Prefix, cases: list[Case], kept: list[NDArray[np.int64]]
    ) -> Prefix:
        head = list(self._pair.cloud.prompt.head_tokens)
        start = len(head)
        columns = [[*range(start), *(start + row).tolist()] for row in kept]
        if way.execution is Execution.EVICT:
            return evicted(full, columns)
        ids = [
            [*head, *(case.tokens[index] for index in row.tolist())]
            for case, row in zip(cases, kept, strict=True)
        ]
        with torch.no_grad():
            return prefill(self._pair.model, ids, columns)

    def _coded(self, prefix: Prefix, codec_name: str) -> Prefix:
        """The prefix after its context went through a codec; head positions are never coded."""
        codec = codec_by_name(codec_name)
        start = len(self._pair.cloud.prompt.head_tokens)
        cache = prefix.cache
        keys = [key.clone() for key in cache.keys]
        values = [value.clone() for value in cache.values]
        for row, length in enumerate(prefix.lengths.tolist()):
            kv = torch.stack(
                [
                    torch.stack((key[row, :, start:length], value[row, :, start:length]))
                    for key, value in zip(keys, values, strict=True)
                ]
            ).cpu()
            read = codec.decode(codec.encode(kv), self._pair.cloud.geometry, length - start)
            for layer, (key, value) in enumerate(zip(keys, values, strict=True)):
                key[row, :, start:length] = read[layer, 0].to(key)
                value[row, :, start:length] = read[layer, 1].to(value)
        return Prefix(KeyValues(keys, values, cache.filled), prefix.lengths, prefix.valid)

    def _answer(
        self, way: Way, prefix: Prefix, cases: list[Case], kept: list[NDArray[np.int64]]
    ) -> None:
        start = len(self._pair.cloud.prompt.head_tokens)
        starts = [start + len(case.tokens) for case in cases]
        tails = [case.tail for case in cases]
        answers = greedy_answers(self._pair.model, prefix, tails, starts, MAX_ANSWER_TOKENS)
        tally = self.tallies.setdefault(way, Tally())
        for case, ids, row in zip(cases, answers, kept, strict=True):
            text = self._pair.cloud.text(ids).strip()
            tally.f1.append(answer_f1(text, case.example.answers))
            tally.em.append(exact_match(text, case.example.answers))
            share = answer_recall(case, row)
            if share is not None:
                tally.recall.append(share)
            tally.payload_bytes.append(self._payload_bytes(way, case, row))
            edge, cloud = self._compute(way, case, len(row))
            tally.edge_compute.append(edge)
            tally.cloud_compute.append(cloud)

    def _payload_bytes(self, way: Way, case: Case, kept: NDArray[np.int64]) -> int:
        count = len(case.tokens)
        indices = len(encode_positions(kept, count))
        geometry = self._pair.cloud.geometry
        match way.mode:
            case Mode.KV_BF16:
                return geometry.bf16_bytes(count)
            case Mode.KV_INT8:
                return codec_by_name("int8_groups").encoded_bytes(geometry, count)
            case Mode.KV_INT4:
                return codec_by_name("int4_groups").encoded_bytes(geometry, count)
            case Mode.KV_SELECT:
                coded = codec_by_name("int8_groups").encoded_bytes(geometry, len(kept))
                return indices + coded
            case Mode.SCOUT:
                sent = len(kept) if way.execution is Execution.SPARSE else count
                return indices + token_bytes(self._pair.cloud.vocabulary, sent)

    def _compute(self, way: Way, case: Case, kept: int) -> tuple[float, float]:
        head = len(self._pair.cloud.prompt.head_tokens)
        count, tail = len(case.tokens), len(case.tail)
        whole = float(head + count + tail)
        if way.mode is not Mode.SCOUT:
            scoring = tail if way.mode is Mode.KV_SELECT else 0
            return (head + count + scoring) / whole, tail / whole
        depth = self._pair.scout.layers / self._pair.cloud.layers
        # The question stands on both sides of the passage in the scout's own prompt.
        edge = depth * (count + 2 * tail) / whole if way.selector == SCOUT else 0.0
        if way.selector in (CLOUD, "uniform_mean", "snap_pooling"):
            edge = 1.0
        sparse = way.execution is Execution.SPARSE
        return edge, ((head + kept + tail) / whole) if sparse else 1.0

    def rows(self) -> tuple[QualityRow, ...]:
        """The table, full context first."""
        reference = np.array(self.tallies[Way(Mode.SCOUT, Execution.EVICT, 1.0, FULL)].f1)
        return tuple(_row(way, tally, reference) for way, tally in self.tallies.items())


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _row(way: Way, tally: Tally, reference: Floats) -> QualityRow:
    f1 = np.array(tally.f1)
    own = mean_interval(f1)
    ratio = ratio_interval(f1, reference) if reference.mean() > 0 else None
    return QualityRow(
        mode=way.mode.value,
        execution=way.execution.value,
        retention=way.retention,
        selector=way.selector,
        n=len(f1),
        f1=own.value,
        f1_low=own.low,
        f1_high=own.high,
        em=float(np.mean(tally.em)),
        ratio=ratio.value if ratio else 0.0,
        ratio_low=ratio.low if ratio else 0.0,
        ratio_high=ratio.high if ratio else 0.0,
        p_value=paired_p_value(f1, reference),
        answer_recall=_mean(tally.recall),
        overlap=_mean(tally.overlap),
        payload_bytes=float(np.mean(tally.payload_bytes)),
        edge_compute=float(np.mean(tally.edge_compute)),
        cloud_compute=float(np.mean(tally.cloud_compute)),
    )

"""From records to the table: means, bootstrap intervals and paired tests, whole or by source.

Every row is compared question by question with the whole context, and with the scout at the same
execution and retention. Knows records only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scout_core.evaluation.metrics import (
    Floats,
    mean_interval,
    paired_p_value,
    ratio_interval,
)
from scout_core.evaluation.quality_case import SCOUT
from scout_core.evaluation.quality_codecs import NO_CODEC
from scout_core.evaluation.quality_records import Outcome, Record
from scout_core.evaluation.quality_ways import WHOLE, Way
from scout_core.modes import Mode

PAPER_OVERLAP = "0.82-0.83"
"""Overlap of scout's and cloud's choice that the source paper reports, at about half kept."""


@dataclass(frozen=True, slots=True)
class QualityRow:
    """One way over all questions that were tried in it.

    ``n`` counts answered questions; the fields about answers are None where it is 0. ``ratio``,
    ``difference`` (F1) and ``p_value`` compare with the whole context on the same questions,
    ``against_scout`` (F1) and ``against_scout_p`` with the scout. ``recall_n`` questions have the
    answer in their context; ``recall_against_scout`` and its p compare on those. ``codec`` is what
    a KV mode's cache went through; empty for others.
    """

    mode: str
    execution: str
    retention: float
    selector: str
    n: int
    f1: float | None
    f1_low: float | None
    f1_high: float | None
    em: float | None
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    difference: float | None
    p_value: float | None
    against_scout: float | None
    against_scout_p: float | None
    recall_n: int
    answer_recall: float | None
    answer_recall_low: float | None
    answer_recall_high: float | None
    recall_against_scout: float | None
    recall_against_scout_p: float | None
    overlap: float | None
    payload_bytes: float
    edge_compute: float
    cloud_compute: float
    codec: str = NO_CODEC


def table(records: Iterable[Record]) -> tuple[QualityRow, ...]:
    """A row per way, in the order in which the ways first appear; the whole context first."""
    held = list(records)
    ways = dict.fromkeys(way for record in held for way in record.outcomes)
    ordered = sorted(ways, key=lambda way: way != WHOLE)
    return tuple(_row(way, held) for way in ordered)


def by_source(
    records: Iterable[Record], pools: Mapping[str, Sequence[str]]
) -> dict[str, tuple[QualityRow, ...]]:
    """A table per source of the data; ``pools`` names sources to be taken together."""
    held = list(records)
    pooled = {source for sources in pools.values() for source in sources}
    groups: dict[str, Sequence[str]] = dict(pools)
    for source in dict.fromkeys(record.source for record in held):
        if source not in pooled:
            groups[source] = (source,)
    return {
        name: table(record for record in held if record.source in sources)
        for name, sources in groups.items()
        if any(record.source in sources for record in held)
    }


def _f1(outcome: Outcome) -> float | None:
    return outcome.f1


def _recall(outcome: Outcome) -> float | None:
    return outcome.recall


def _paired(
    records: Sequence[Record], way: Way, other: Way, figure: Callable[[Outcome], float | None]
) -> tuple[Floats, Floats]:
    """A figure in both ways, of the questions that have it in both."""
    rows: list[tuple[float, float]] = []
    for record in records:
        if way not in record.outcomes or other not in record.outcomes:
            continue
        mine, theirs = figure(record.outcomes[way]), figure(record.outcomes[other])
        if mine is not None and theirs is not None:
            rows.append((mine, theirs))
    values = np.array(rows, dtype=np.float64).reshape(-1, 2)
    return values[:, 0], values[:, 1]


def _row(way: Way, records: Sequence[Record]) -> QualityRow:
    found = [record.outcomes[way] for record in records if way in record.outcomes]
    f1, reference = _paired(records, way, WHOLE, _f1)
    own = mean_interval(f1) if f1.size else None
    ratio = ratio_interval(f1, reference) if f1.size and reference.mean() > 0 else None
    scout = Way(way.mode, way.execution, way.retention, SCOUT)
    compared = way.mode is Mode.SCOUT and way.selector != SCOUT and way != WHOLE
    against = records if compared else ()
    mine, theirs = _paired(against, way, scout, _f1)
    my_recall, its_recall = _paired(against, way, scout, _recall)
    recall = np.array([o.recall for o in found if o.recall is not None], dtype=np.float64)
    share = mean_interval(recall) if recall.size else None
    return QualityRow(
        mode=way.mode.value,
        execution=way.execution.value,
        retention=way.retention,
        selector=way.selector,
        n=f1.size,
        f1=own.value if own else None,
        f1_low=own.low if own else None,
        f1_high=own.high if own else None,
        em=_mean([o.em for o in found]),
        ratio=ratio.value if ratio else None,
        ratio_low=ratio.low if ratio else None,
        ratio_high=ratio.high if ratio else None,
        difference=_difference(f1, reference),
        p_value=paired_p_value(f1, reference) if f1.size else None,
        against_scout=_difference(mine, theirs),
        against_scout_p=paired_p_value(mine, theirs) if mine.size else None,
        recall_n=recall.size,
        answer_recall=share.value if share else None,
        answer_recall_low=share.low if share else None,
        answer_recall_high=share.high if share else None,
        recall_against_scout=_difference(my_recall, its_recall),
        recall_against_scout_p=paired_p_value(my_recall, its_recall) if my_recall.size else None,
        overlap=_mean([o.overlap for o in found]),
        **_costs(found),
        codec=way.codec,
    )


def _difference(values: Floats, reference: Floats) -> float | None:
    return float((values - reference).mean()) if values.size else None


def _costs(found: Sequence[Outcome]) -> dict[str, float]:
    return {
        "payload_bytes": float(np.mean([o.payload_bytes for o in found])),
        "edge_compute": float(np.mean([o.edge_compute for o in found])),
        "cloud_compute": float(np.mean([o.cloud_compute for o in found])),
    }


def _mean(values: Iterable[float | None]) -> float | None:
    held = [value for value in values if value is not None]
    return float(np.mean(held)) if held else None

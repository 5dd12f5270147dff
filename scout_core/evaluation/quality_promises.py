"""The quality rows of a profile: what a pair is measured to keep, band by band of context lengths.

Owns the measuring of a calibration, which may be stopped and gone on with like the quality study's,
and the choice of what of it a profile states. A KV mode that an edge sends in several ways has a
row for each; whoever reads the profile expects the least of them (``scout_core.models.quality``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from scout_core.errors import EmptyInputError, RequestError
from scout_core.evaluation.dataset import Example
from scout_core.evaluation.quality_case import CLOUD, SCOUT
from scout_core.evaluation.quality_codecs import NO_CODEC
from scout_core.evaluation.quality_identity import identity_of
from scout_core.evaluation.quality_models import Pair
from scout_core.evaluation.quality_records import Record, RecordsFile, question_key
from scout_core.evaluation.quality_study import Plan, Study
from scout_core.evaluation.quality_table import QualityRow, table
from scout_core.models.profile import HeadWeightsRecord, QualityRecord
from scout_core.models.quality import UNBOUNDED_TOKENS
from scout_core.modes import Execution, Mode

LONG_FROM_TOKENS = 512
"""Contexts from here on get rows of their own, where there are enough of them."""
LEAST_PER_BAND = 20
SEED = 0
"""Of the study's plan, as in ``scout eval quality``: records of either serve the other."""


@dataclass(frozen=True, slots=True)
class Run:
    """How one run goes about its measuring.

    Args:
        report: gets progress, line by line.
        records: file of what was found, question by question, to go on from; None keeps nothing.
        stop_at_s: ``time.monotonic`` at which it stops; None: when all is measured.
    """

    report: Callable[[str], None]
    records: Path | None = None
    stop_at_s: float | None = None

    def goes_on(self, done: int, every: int) -> bool:
        """Reports progress; whether there is time for more."""
        self.report(f"{done} of {every}")
        return self.stop_at_s is None or time.monotonic() < self.stop_at_s


def promises(
    pair: Pair,
    scout_heads: HeadWeightsRecord | None,
    measured: Sequence[Example],
    retentions: tuple[float, ...],
    run: Run,
) -> tuple[QualityRecord, ...]:
    """The quality table of a pair.

    Args:
        pair: with the cloud's heads.
        scout_heads: calibrated ones of the scout, if it selects with them.
        retentions: of ``scout``; ``KV_SELECT_RETENTION`` must be one of them.

    Raises:
        RequestError: stopped before all was measured; or the records are of something else.
        EmptyInputError: the model answers none of the questions.
    """
    kept = None
    if run.records is not None:
        kept = RecordsFile(run.records, identity_of(pair, scout_heads, SEED))
    plan = Plan(retentions, SEED, selectors=frozenset({SCOUT, CLOUD}))
    study = Study(pair, plan, None, None if kept is None else kept.read())

    def found(records: Sequence[tuple[str, Record]]) -> None:
        if kept is not None:
            kept.append(records)

    bands = _bands(pair, measured)
    for low, high, part in bands:
        run.report(f"measuring {len(part)} questions of {low} to {high} context tokens")
        study.run(part, run.goes_on, found)
        if study.unmeasured(part):
            break
    missing = study.unmeasured(measured)
    if missing:
        raise RequestError(
            f"Stopped with {missing} of {len(measured)} questions not measured; the same command "
            "goes on from its --records.",
        )
    return tuple(
        record for low, high, part in bands for record in _records(_rows(study, part), low, high)
    )


def _bands(pair: Pair, examples: Sequence[Example]) -> list[tuple[int, int, list[Example]]]:
    lengths = [len(pair.cloud.prompt.context_tokens(example.context)) for example in examples]
    pairs = list(zip(lengths, examples, strict=True))
    short = [example for length, example in pairs if length < LONG_FROM_TOKENS]
    long = [example for length, example in pairs if length >= LONG_FROM_TOKENS]
    if min(len(short), len(long)) < LEAST_PER_BAND:
        return [(1, UNBOUNDED_TOKENS, list(examples))]
    edge = LONG_FROM_TOKENS
    return [(1, edge - 1, short), (edge, UNBOUNDED_TOKENS, long)]


def _rows(study: Study, part: Sequence[Example]) -> tuple[QualityRow, ...]:
    """The table of these questions in the planned ways, whatever else the records hold."""
    keys = dict.fromkeys(question_key(example) for example in part)
    held = [study.records[key] for key in keys]
    return table(
        Record(
            record.source,
            record.context_tokens,
            {way: record.outcomes[way] for way in study.ways},
        )
        for record in held
    )


def _records(rows: Sequence[QualityRow], low: int, high: int) -> list[QualityRecord]:
    """The profile's rows: KV modes, the scout's selections, and kv_select by the cloud's heads."""
    records: list[QualityRecord] = []
    for row in rows:
        mode, execution = Mode(row.mode), Execution(row.execution)
        keeps_all = row.retention == 1.0
        if mode is Mode.SCOUT and row.selector != SCOUT and not keeps_all:
            continue
        if row.ratio is None or row.ratio_low is None or row.ratio_high is None:
            raise EmptyInputError(
                "The model answers none of these questions even from the whole context: there is "
                "no quality to calibrate. Use other data or another model.",
            )
        records.append(
            QualityRecord(
                mode=mode,
                execution=execution,
                retention=row.retention,
                context_tokens_low=low,
                context_tokens_high=high,
                quality=row.ratio,
                n=row.n,
                low=row.ratio_low,
                high=row.ratio_high,
                codec=None if row.codec == NO_CODEC else row.codec,
            )
        )
    # At retention 1.0 both executions are the whole context itself, and kv_select is all of its KV
    # through the same codec.
    whole = next(record for record in records if record.mode is Mode.SCOUT)
    records.append(whole.model_copy(update={"execution": Execution.SPARSE}))
    selected = next(record for record in records if record.mode is Mode.KV_SELECT)
    all_sent = next(r for r in records if r.retention == 1.0 and r.codec == selected.codec)
    records.append(all_sent.model_copy(update={"mode": Mode.KV_SELECT}))
    return records

"""The table made of records."""

from __future__ import annotations

from scout_core.evaluation.quality_batches import budget_for, by_length
from scout_core.evaluation.quality_records import Outcome, Record
from scout_core.evaluation.quality_table import by_source, table
from scout_core.evaluation.quality_ways import WHOLE, Way
from scout_core.modes import Execution, Mode

SCOUT = Way(Mode.SCOUT, Execution.EVICT, 0.5, "scout")
BM25 = Way(Mode.SCOUT, Execution.EVICT, 0.5, "bm25")


def _outcome(f1: float | None, recall: float | None = 1.0) -> Outcome:
    return Outcome(f1, f1, recall, 0.8, 100, 0.3, 1.0)


def _record(source: str, whole: float, scout: float, bm25: float | None) -> Record:
    record = Record(source, 170, {SCOUT: _outcome(scout), WHOLE: _outcome(whole)})
    if bm25 is not None:
        record.outcomes[BM25] = _outcome(bm25)
    return record


def test_rows_compare_with_the_whole_context_and_with_the_scout() -> None:
    rows = table([_record("a", 1.0, 1.0, 0.5), _record("a", 0.5, 1.0, 0.5)])
    assert [row.selector for row in rows] == ["all", "scout", "bm25"]
    whole, scout, bm25 = rows
    assert (whole.ratio, whole.against_scout) == (1.0, None)
    assert (scout.ratio, scout.difference, scout.against_scout) == (2.0 / 1.5, 0.25, None)
    assert (bm25.ratio, bm25.against_scout) == (1.0 / 1.5, -0.5)
    assert bm25.recall_against_scout == 0.0


def test_a_row_that_fewer_questions_have_is_compared_on_those() -> None:
    rows = table([_record("a", 1.0, 0.0, 1.0), _record("a", 0.0, 1.0, None)])
    bm25 = rows[-1]
    assert (bm25.n, bm25.ratio, bm25.against_scout) == (1, 1.0, 1.0)


def test_rows_without_answers_have_recall_alone() -> None:
    records = [Record("a", 9, {WHOLE: _outcome(None), SCOUT: _outcome(None, 0.5)})]
    scout = table(records)[1]
    assert (scout.n, scout.f1, scout.ratio, scout.answer_recall) == (0, None, None, 0.5)


def test_recall_is_compared_with_the_scouts_without_answers() -> None:
    ways = {WHOLE: _outcome(None), SCOUT: _outcome(None, 0.5), BM25: _outcome(None, 0.75)}
    bm25 = table([Record("a", 9, dict(ways)) for _ in range(3)])[-1]
    assert (bm25.recall_against_scout, bm25.against_scout) == (0.25, None)
    assert bm25.recall_against_scout_p is not None


def test_sources_are_reported_apart_or_pooled() -> None:
    records = [_record(source, 1.0, 0.5, None) for source in ("x", "y", "z", "x")]
    found = by_source(records, {"both": ("x", "y")})
    assert {name: rows[0].n for name, rows in found.items()} == {"both": 3, "z": 1}


def test_no_batch_is_padded_beyond_its_budget() -> None:
    lengths = [5, 90, 3, 40, 41, 2, 200]
    batches = by_length(lengths, 100)
    assert sorted(index for batch in batches for index in batch) == list(range(7))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= 100


def test_a_wider_cache_makes_smaller_batches() -> None:
    narrow, wide = (budget_for("cpu", size) for size in (23_040, 196_608))
    assert wide.decode_tokens < narrow.decode_tokens
    assert wide.pass_tokens <= wide.decode_tokens

"""The tables of ``scout eval quality`` on a terminal of 80 columns."""

from __future__ import annotations

from rich.console import Console

from scout_core.cli.eval_quality_tables import answer_table, cost_table, selection_table
from scout_core.evaluation.quality_records import Outcome, Record
from scout_core.evaluation.quality_table import table
from scout_core.evaluation.quality_ways import WHOLE, Way
from scout_core.modes import Execution, Mode


def _printed(*shown: object) -> str:
    console = Console(width=80)
    with console.capture() as capture:
        for each in shown:
            console.print(each)
    return capture.get()


def _record(f1: float | None) -> Record:
    whole = Outcome(f1, f1, 1.0, None, 300, 0.0, 1.0)
    scout = Outcome(f1, f1, 0.875, 0.765, 40, 0.375, 0.25)
    ways = {
        WHOLE: whole,
        Way(Mode.SCOUT, Execution.EVICT, 0.25, "scout"): scout,
        Way(Mode.SCOUT, Execution.SPARSE, 0.25, "scout"): scout,
        Way(Mode.KV_INT8, Execution.EVICT, 1.0, "all"): whole,
    }
    return Record("a", 100, dict(ways))


def test_answers_selections_and_costs_are_told_apart() -> None:
    rows = table([_record(0.5)])
    answers = answer_table("all", rows)
    assert answers is not None
    text = _printed(answers)
    assert "evict" in text
    assert "kv_int8" in text
    assert "0.500" in text
    text = _printed(selection_table("all", rows))
    assert "0.875" in text
    assert "0.765" in text
    assert "0.82-0.83" in text
    assert "kv_int8" not in text
    assert "sparse" in _printed(cost_table(rows))


def test_nothing_answered_is_no_table_of_answers() -> None:
    assert answer_table("all", table([_record(None)])) is None

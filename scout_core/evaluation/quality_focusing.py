"""Attention focusing: is an answer *better* when the model sees less of the passage?

Owns the comparison of one task's selections with the whole context, question by question, and the
correction for having asked several times. A task is a set of questions of one kind with others to
fit the cloud's heads on. What "better" means: a positive mean difference in F1 whose paired
permutation test, Holm-corrected over all selections and tasks of a model, stays below 5 %.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from scout_core.evaluation.dataset import Example
from scout_core.evaluation.quality_case import CLOUD, SCOUT
from scout_core.evaluation.quality_heads import MOST_FITTED, fitted_heads
from scout_core.evaluation.quality_models import Pair
from scout_core.evaluation.quality_records import Record
from scout_core.evaluation.quality_study import Plan, Study
from scout_core.evaluation.quality_table import QualityRow
from scout_core.modes import Mode

SIGNIFICANT = 0.05


@dataclass(frozen=True, slots=True)
class Task:
    """Questions that are measured, and others of their kind that heads are fitted on."""

    name: str
    measured: Sequence[Example]
    fitted_on: Sequence[Example]


@dataclass(frozen=True, slots=True)
class FocusingRow:
    """One selection of one task. ``corrected_p`` is Holm's over all rows of the model."""

    task: str
    full_f1: float
    row: QualityRow
    corrected_p: float

    @property
    def better(self) -> bool:
        """Whether less context gives better answers, as far as this many questions can tell."""
        return (self.row.difference or 0.0) > 0 and self.corrected_p < SIGNIFICANT


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979), in the given order: controls the chance of any error."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    corrected = [0.0] * len(p_values)
    worst = 0.0
    for rank, index in enumerate(order):
        worst = max(worst, min(1.0, p_values[index] * (len(p_values) - rank)))
        corrected[index] = worst
    return corrected


def focusing(
    pair: Pair, tasks: Sequence[Task], retentions: Sequence[float], report: Callable[[str], None]
) -> tuple[FocusingRow, ...]:
    """Both executions of the cloud's own choice and the scout's, task by task.

    Heads that a profile brought are kept; a model without any gets its own, per task.

    Raises:
        EmptyInputError: too few questions to fit heads on.
    """
    found: list[tuple[str, float, QualityRow]] = []
    for task in tasks:
        report(f"{task.name}: {len(task.measured)} questions")
        heads = pair.heads
        if heads is None:
            heads = fitted_heads(pair.cloud, pair.model, task.fitted_on[:MOST_FITTED])
        plan = Plan(tuple(retentions), kv_modes=False, selectors=frozenset({CLOUD, SCOUT}))
        study = Study(replace(pair, heads=heads), plan, None)
        study.run(task.measured, _noting(task.name, report), _keep_nothing)
        rows = study.rows()
        found += [
            (task.name, rows[0].f1 or 0.0, row)
            for row in rows[1:]
            if row.mode == Mode.SCOUT.value and row.p_value is not None
        ]
    corrected = holm([row.p_value or 0.0 for _, _, row in found])
    return tuple(
        FocusingRow(name, full, row, p)
        for (name, full, row), p in zip(found, corrected, strict=True)
    )


def _noting(name: str, report: Callable[[str], None]) -> Callable[[int, int], bool]:
    def note(done: int, every: int) -> bool:
        report(f"{name}: {done} of {every}")
        return True

    return note


def _keep_nothing(records: Sequence[tuple[str, Record]]) -> None:
    """The study holds its records itself."""
    del records

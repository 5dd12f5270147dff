"""Attention focusing: one comparison per selection, corrected for their number."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from scout_core.evaluation.dataset import Example
from scout_core.evaluation.quality_focusing import Task, focusing, holm
from scout_core.evaluation.quality_models import Hosting, load_pair
from tests.support.tiny_models import save_tiny_model

PASSAGE = "The lighthouse was built of granite by Anna Holm in 1820. The lamp was converted later."
EXAMPLES = tuple(
    Example(f"{PASSAGE} Number {i}.", "Who built it?", ("Anna Holm",), f"g{i}", "x", str(i))
    for i in range(12)
)


def test_holm_multiplies_the_smallest_most_and_keeps_the_order() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_every_selection_is_compared_with_the_whole_context(tmp_path: Path) -> None:
    folder = str(save_tiny_model(tmp_path))
    pair = load_pair(folder, folder, None, Hosting("cpu", "float32", 1))
    task = Task("tiny", EXAMPLES[:2], EXAMPLES[2:])
    rows = focusing(pair, [task, replace(task, name="again")], (0.5,), lambda _: None)
    found = [(row.task, row.row.selector, row.row.execution) for row in rows]
    kinds = [(s, e) for s in ("cloud", "scout") for e in ("evict", "sparse")]
    assert found == [(name, s, e) for name in ("tiny", "again") for s, e in kinds]
    assert all(row.corrected_p >= (row.row.p_value or 0.0) for row in rows)
    assert not any(row.better for row in rows if row.row.difference == 0.0)

"""Held-out rows as files come back as they went."""

from __future__ import annotations

from pathlib import Path

from scout_core.evaluation.dataset import Example, load_examples
from scout_core.evaluation.training.held_out import write_rows


def test_written_rows_are_read_back_without_the_unanswerable(tmp_path: Path) -> None:
    kept = Example("A passage.", "Why?", ("so", "thus"), "g", "source", "id-1")
    refused = Example("A passage.", "When?", (), "g", "source", "id-2")
    path = tmp_path / "rows.jsonl"
    assert write_rows(path, [kept, refused]) == 1
    assert load_examples(path) == (kept,)

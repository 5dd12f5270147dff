"""Rows, their errors and the split by article."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scout_core.errors import RequestError
from scout_core.evaluation.dataset import Example, data_hash, hold_out, load_examples


def _example(group: str, number: int) -> Example:
    return Example(f"text {group}", f"question {number}", ("x",), group, "made", str(number))


def test_rows_are_read_in_order_and_name_their_article(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    row = {"context": "c", "question": " q ", "answers": [], "group": "g"}
    path.write_text(json.dumps(row) + "\n\n" + json.dumps({**row, "group": "h"}) + "\n")
    first, second = load_examples(path)
    assert (first.question, first.answerable, first.group, second.group) == ("q", False, "g", "h")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("not json", "rows.jsonl:1"),
        ('{"context": "", "question": "q", "answers": []}', "'context'"),
        ('{"context": "c", "question": "q", "answers": "x"}', "'answers'"),
        ('{"context": "c", "question": "q", "answers": [1]}', "every item"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, line: str, told: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(RequestError, match=told):
        load_examples(path)


def test_a_missing_file_says_which_option_names_it(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="--data"):
        load_examples(tmp_path / "none.jsonl")


def test_a_split_keeps_every_article_on_one_side() -> None:
    rows = [_example(f"g{number % 7}", number) for number in range(70)]
    rest, held = hold_out(rows, at_least=15, seed=3)
    assert len(held) >= 15
    assert len(rest) + len(held) == 70
    assert not {row.group for row in rest} & {row.group for row in held}
    assert hold_out(rows, at_least=15, seed=3) == (rest, held)


def test_the_data_hash_sees_order_and_text() -> None:
    one, two = _example("a", 1), _example("b", 2)
    assert data_hash([one, two]) == data_hash([one, two])
    assert data_hash([one, two]) != data_hash([two, one])

"""What the options of ``scout eval quality`` mean, and the whole command on a tiny pair."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from scout_core.cli.eval_quality import chosen, command, pools_of
from scout_core.errors import RequestError
from scout_core.evaluation.dataset import Example, part_of
from tests.support.tiny_models import save_tiny_model

PASSAGE = "The lighthouse was built of granite by Anna Holm in 1820. The lamp was converted later."
ROWS = [
    {
        "context": f"{PASSAGE} Number {index}.",
        "question": "Who built the lighthouse?",
        "answers": ["Anna Holm"],
        "group": f"g{index}",
        "source": "north" if index % 2 else "south",
    }
    for index in range(24)
]


def _example(name: str, *answers: str) -> Example:
    return Example(PASSAGE, "Who?", answers, name, "x", name)


def test_parts_are_disjoint_and_complete() -> None:
    examples = [_example(str(index), "a") for index in range(7)]
    parts = [part_of(examples, f"{index}/3") for index in (1, 2, 3)]
    assert sorted(e.name for part in parts for e in part) == [str(index) for index in range(7)]
    assert part_of(examples, None) == examples


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0"])
def test_a_part_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="--part"):
        part_of([], text)


def test_pools_name_sources() -> None:
    assert pools_of(["A=x,y", "B=z"]) == {"A": ("x", "y"), "B": ("z",)}
    with pytest.raises(RequestError, match="--pool"):
        pools_of(["A"])


def test_only_answerable_rows_are_drawn() -> None:
    rows = (_example("a", "x"), _example("b"))
    assert [example.name for example in chosen(rows, 5, 0)] == ["a"]


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    folder = tmp_path / "tiny"
    folder.mkdir()
    pair = ["--cloud", str(save_tiny_model(folder)), "--scout", str(folder)]
    host = ["--device", "cpu", "--compute-dtype", "float32", "--threads", "1"]
    return ["--data", str(data), "--retention", "0.5", "--json", *pair, *host]


def _document(arguments: list[str]) -> dict[str, Any]:
    done = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_parts_and_records_give_one_table(arguments: list[str], tmp_path: Path) -> None:
    few = [*arguments, "--n", "6", "--selectors", "scout,oracle", "--no-kv-modes"]
    whole = _document(few)
    paths = [tmp_path / f"part{index}.jsonl" for index in (1, 2)]
    for index, path in enumerate(paths, start=1):
        _document([*few, "--part", f"{index}/2", "--records", str(path)])
    both = tmp_path / "both.jsonl"
    both.write_text("".join(path.read_text() for path in paths))
    merged = _document([*few, "--records", str(both)])
    assert merged["rows"] == whole["rows"]
    assert merged["n"] == 6
    assert set(merged["sources"]) <= {"north", "south"}
    assert both.read_text().count("\n") == 6 + 2


def test_a_cloud_without_a_profile_gets_its_heads(arguments: list[str]) -> None:
    fit = ["--n", "24", "--fit-heads", "--no-answers", "--kv-cosine", "1"]
    found = _document([*arguments, *fit, "--selectors", "scout,cloud"])
    rows = {(row["selector"], row["execution"]): row for row in found["rows"]}
    assert rows["cloud", "evict"]["n"] == 0
    assert rows["cloud", "evict"]["answer_recall"] is not None
    assert rows["scout", "sparse"]["overlap"] is not None
    assert found["paper_overlap"] == "0.82-0.83"
    assert 0 < found["n"] < 24
    assert found["kv_cosine"][-1]["layer"] is None

"""``scout calibrate`` as a command: stopped, gone on with, and refused where it would lose work."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from scout_core.cli.calibrate import command
from scout_core.errors import ProfileError, RequestError
from scout_core.evaluation import quality_study
from scout_core.evaluation.quality_batches import Budget
from scout_core.models.profile import read_profile
from scout_core.modes import Mode
from tests.support.tiny_models import save_tiny_model, tiny_engine
from tests.support.tiny_transform import save_tiny_basis

ROWS = [
    {
        "context": f"The lighthouse was built by Anna Holm in 1820. Number {index}.",
        "question": "Who built the lighthouse?",
        "answers": ["Anna Holm"],
        "group": f"g{index}",
    }
    for index in range(40)
]


def _half_right(text: str, golds: Sequence[str]) -> float:
    del text
    return 0.5 * bool(golds)


def _slices_of_one(device_type: str, cache_bytes_per_token: int) -> Budget:
    del device_type, cache_bytes_per_token
    return Budget(60, 60, 400)


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(quality_study, "answer_f1", _half_right)
    monkeypatch.setattr(quality_study, "budget_for", _slices_of_one)
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    folder = tmp_path / "tiny"
    folder.mkdir()
    pair = ["--cloud", str(save_tiny_model(folder)), "--scout", str(folder)]
    out = ["--out", str(tmp_path / "profile.json"), "--no-costs", "--retention", "0.5"]
    return ["--data", str(data), "--n", "20", *pair, *out]


def _run(arguments: list[str]) -> None:
    CliRunner().invoke(command, arguments, catch_exceptions=False)


def test_a_stopped_command_writes_no_profile_and_the_same_one_goes_on(
    arguments: list[str], tmp_path: Path
) -> None:
    basis = save_tiny_basis(tiny_engine(tmp_path / "tiny"), tmp_path / "transform.safetensors")
    records = ["--records", str(tmp_path / "records.jsonl")]
    sending = [*arguments, *records, "--transform", str(basis)]
    with pytest.raises(RequestError, match="19 of 20 questions not measured"):
        _run([*sending, "--time-limit", "0"])
    assert not (tmp_path / "profile.json").exists()
    _run([*sending, "--time-limit", "600"])
    profile = read_profile(tmp_path / "profile.json")
    assert {row.n for row in profile.quality} == {20}
    assert {row.codec for row in profile.quality if row.mode is Mode.KV_INT4} == {
        "transform",
        "transform_graded",
    }
    with pytest.raises(RequestError, match="another coding of KV"):
        _run([*arguments, *records, "--transform", "none"])


def test_a_limit_that_would_lose_what_it_measured_is_refused(arguments: list[str]) -> None:
    with pytest.raises(RequestError, match="needs --records"):
        _run([*arguments, "--time-limit", "5"])


def test_a_basis_that_is_none_is_refused(arguments: list[str], tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="No transform basis"):
        _run([*arguments, "--transform", str(tmp_path / "rows.jsonl") + ".missing"])

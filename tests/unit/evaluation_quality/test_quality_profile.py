"""``scout calibrate`` on a tiny pair: a whole profile, or a reason why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from scout_core.errors import EmptyInputError, RequestError
from scout_core.evaluation import quality_profile, quality_promises, quality_study
from scout_core.evaluation.dataset import Example
from scout_core.evaluation.quality_batches import Budget
from scout_core.evaluation.quality_identity import identity_of
from scout_core.evaluation.quality_models import Hosting, Pair, load_pair
from scout_core.evaluation.quality_profile import Request, calibrate
from scout_core.evaluation.quality_promises import Run
from scout_core.evaluation.quality_records import Identity, RecordsFile
from scout_core.modes import Execution, Mode
from scout_core.selection import HeadWeights
from tests.support.tiny_models import save_tiny_model
from tests.support.tiny_transform import tiny_basis

PASSAGE = "The lighthouse was built of granite by Anna Holm in 1820. The lamp was converted later."
EXAMPLES = tuple(
    Example(f"{PASSAGE} Number {i}.", "Who built it?", ("Anna Holm",), f"g{i}", "x", str(i))
    for i in range(44)
)
REQUEST = Request("tiny", (0.5, 0.25), 12, "made up")
QUICK = replace(REQUEST, costs=False)


def _slices_of_one(device_type: str, cache_bytes_per_token: int) -> Budget:
    del device_type, cache_bytes_per_token
    return Budget(60, 60, 400)


def _silent(message: str) -> None:
    """Progress is of no interest here."""


def _keep_nothing(*arguments: object) -> None:
    """The study holds its records itself."""
    del arguments


def _half_right(text: str, golds: Sequence[str]) -> float:
    del text
    return 0.5 * bool(golds)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = str(save_tiny_model(tmp_path_factory.mktemp("tiny")))
    return load_pair(folder, folder, None, Hosting("cpu", "float32", 1))


def test_a_profile_has_every_mode_and_both_models_heads(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality_study, "answer_f1", _half_right)
    profile = calibrate(pair, EXAMPLES, REQUEST, Run(_silent))
    rows = {(row.mode, row.execution, row.retention): row for row in profile.quality}
    scouts = {(Mode.SCOUT, e, r) for e in Execution for r in (0.25, 0.5, 1.0)}
    kept = {(Mode.KV_SELECT, Execution.EVICT, r) for r in (0.5, 1.0)}
    whole = {(mode, Execution.EVICT, 1.0) for mode in (Mode.KV_BF16, Mode.KV_INT8, Mode.KV_INT4)}
    assert set(rows) == scouts | kept | whole
    assert all((row.quality, row.n) == (1.0, 12) for row in rows.values())
    assert profile.cloud_head_weights is not None
    assert profile.scout_head_weights is not None
    assert len(profile.costs) == 2
    assert profile.kv_coding == "plain groups"
    codecs = {row.mode: row.codec for row in profile.quality}
    assert codecs == {
        Mode.SCOUT: None,
        Mode.KV_BF16: "raw_bf16",
        Mode.KV_INT8: "int8_groups",
        Mode.KV_INT4: "int4_groups",
        Mode.KV_SELECT: "int8_groups",
    }


def test_a_profile_promises_what_an_edge_with_a_transform_sends(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality_study, "answer_f1", _half_right)
    sending = replace(pair, basis=tiny_basis(pair.cloud))
    profile = calibrate(sending, EXAMPLES, QUICK, Run(_silent))
    sent = {(row.mode, row.retention, row.codec) for row in profile.quality if row.codec}
    assert sent == {
        (Mode.KV_BF16, 1.0, "raw_bf16"),
        (Mode.KV_INT8, 1.0, "int8_groups"),
        (Mode.KV_INT4, 1.0, "transform"),
        (Mode.KV_INT4, 1.0, "transform_graded"),
        (Mode.KV_SELECT, 0.5, "transform_graded"),
        (Mode.KV_SELECT, 1.0, "transform_graded"),
    }
    assert profile.quality_table().quality(Mode.KV_INT4, Execution.EVICT, 1.0, 100) == 1.0


def test_a_stopped_calibration_goes_on_from_its_records(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(quality_study, "answer_f1", _half_right)
    monkeypatch.setattr(quality_study, "budget_for", _slices_of_one)
    path = tmp_path / "records.jsonl"
    stopped = Run(_silent, path, stop_at_s=0.0)
    for measured in (1, 2):
        with pytest.raises(RequestError, match=f"with {12 - measured} of 12 questions"):
            calibrate(pair, EXAMPLES, QUICK, stopped)
        assert path.read_text().count("\n") == 1 + measured
    profile = calibrate(pair, EXAMPLES, QUICK, Run(_silent, path))
    assert profile == calibrate(pair, EXAMPLES, QUICK, Run(_silent))
    lines = path.read_text()
    assert calibrate(pair, EXAMPLES, QUICK, stopped) == profile
    assert path.read_text() == lines


def test_records_serve_the_questions_and_ways_that_are_asked_for(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(quality_study, "answer_f1", _half_right)
    heads = HeadWeights(torch.zeros(pair.cloud.layers, pair.cloud.heads))
    given = replace(QUICK, heads=heads, questions=20)
    keeping = Run(_silent, tmp_path / "records.jsonl")

    def known(*_: object, **__: object) -> HeadWeights:
        return heads

    monkeypatch.setattr(quality_profile, "fitted_heads", known)
    calibrate(pair, EXAMPLES, replace(given, retentions=(0.5, 0.25, 0.75)), keeping)
    profile = calibrate(pair, EXAMPLES, replace(given, questions=8), keeping)
    assert {row.n for row in profile.quality} == {8}
    assert {row.retention for row in profile.quality} == {0.25, 0.5, 1.0}


def test_records_through_another_codec_are_refused(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(quality_study, "answer_f1", _half_right)
    keeping = Run(_silent, tmp_path / "records.jsonl")
    calibrate(pair, EXAMPLES, QUICK, keeping)
    basis = tiny_basis(pair.cloud)
    with pytest.raises(RequestError, match="another coding of KV"):
        calibrate(replace(pair, basis=basis), EXAMPLES, QUICK, keeping)


def test_a_profile_for_other_hosts_has_no_costs(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality_study, "answer_f1", _half_right)
    assert calibrate(pair, EXAMPLES, QUICK, Run(_silent)).costs == ()


def test_a_model_that_answers_nothing_gets_no_profile(pair: Pair) -> None:
    hopeless = tuple(replace(example, answers=("granite by Anna",)) for example in EXAMPLES)
    with pytest.raises(EmptyInputError, match="answers none"):
        calibrate(pair, hopeless, REQUEST, Run(_silent))


def test_a_profile_says_what_its_records_were_measured_with(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that records of ``scout eval quality`` with the profile serve its calibration."""
    monkeypatch.setattr(quality_study, "answer_f1", _half_right)
    seen: list[Identity] = []

    def noted(*arguments: Any) -> Identity:
        seen.append(identity_of(*arguments))
        return seen[-1]

    monkeypatch.setattr(quality_promises, "identity_of", noted)
    keeping = Run(_silent, Path("nowhere.jsonl"))
    monkeypatch.setattr(RecordsFile, "append", _keep_nothing)
    profile = calibrate(pair, EXAMPLES, QUICK, keeping)
    assert profile.cloud_head_weights is not None
    read = replace(pair, heads=profile.cloud_head_weights.read())
    assert seen == [identity_of(read, profile.scout_head_weights, 0)]

"""Profiles: read back as written, refused with the key that is wrong, interpolated sensibly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from scout_core.control.cost import Stage
from scout_core.errors import ProfileError
from scout_core.models.profile import Profile, read_profile, write_profile
from scout_core.models.quality import UNCALIBRATED, QualityTable
from scout_core.modes import Execution, Mode
from scout_core.selection import HeadWeights

CLOUD, SCOUT, DATA = "a" * 64, "b" * 64, "c" * 64


def row(
    mode: str, retention: float, quality: float, execution: str = "evict", low: int = 1
) -> dict[str, Any]:
    return {
        "mode": mode,
        "execution": execution,
        "retention": retention,
        "context_tokens_low": low,
        "context_tokens_high": low + 499,
        "quality": quality,
        "n": 100,
        "low": quality - (0.0 if quality == 1.0 else 0.05),
        "high": quality + (0.0 if quality == 1.0 else 0.05),
    }


def document() -> dict[str, Any]:
    weights = HeadWeights(torch.tensor([[0.5, -1.0], [2.0, 0.25]]), bias=0.1)
    return {
        "schema_version": 1,
        "name": "tiny-pair",
        "cloud": {"name": "cloud", "fingerprint": CLOUD},
        "scout": {"name": "scout", "fingerprint": SCOUT},
        "scout_head_weights": weights.to_dict(),
        "quality": [
            row("kv_bf16", 1.0, 1.0),
            row("kv_int8", 1.0, 1.0),
            row("kv_int4", 1.0, 0.98),
            row("kv_select", 0.5, 0.95),
            row("scout", 0.2, 0.6),
            row("scout", 0.4, 0.8),
            row("scout", 1.0, 1.0),
            row("scout", 0.2, 0.4, low=500),
            row("scout", 0.5, 0.7, "sparse"),
        ],
        "costs": [{"stage": "cloud_prefill", "base_s": 0.1, "per_token_s": 0.001, "samples": 9}],
        "data_sha256": DATA,
        "data_description": "100 questions",
    }


def table() -> QualityTable:
    return Profile.model_validate(document()).quality_table()


def write(folder: Path, content: object) -> Path:
    path = folder / "profile.json"
    path.write_text(json.dumps(content))
    return path


def test_a_profile_reads_back_as_it_was_written(tmp_path: Path) -> None:
    profile = read_profile(write(tmp_path, document()))
    again = tmp_path / "again.json"
    write_profile(profile, again)
    assert read_profile(again) == profile
    assert profile.scout_head_weights is not None
    read = profile.scout_head_weights.read()
    assert torch.equal(read.weights, torch.tensor([[0.5, -1.0], [2.0, 0.25]]))
    assert profile.stage_costs()[0].stage is Stage.CLOUD_PREFILL


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("schema_version", 2, "schema_version"),
        ("surprise", 1, "surprise"),
        ("data_sha256", "xyz", "data_sha256"),
        ("quality", [], "quality"),
        ("quality", [row("scout", 1.5, 1.0)], "quality.0.retention"),
        ("quality", [row("teleport", 1.0, 1.0)], "quality.0.mode"),
    ],
)
def test_a_malformed_profile_is_refused_with_the_key(
    tmp_path: Path, key: str, value: object, told: str
) -> None:
    with pytest.raises(ProfileError, match=told):
        read_profile(write(tmp_path, document() | {key: value}))


def test_files_that_are_no_profiles_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="cannot be read"):
        read_profile(tmp_path / "absent.json")
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    with pytest.raises(ProfileError, match="malformed"):
        read_profile(broken)


def test_a_profile_of_other_models_is_refused() -> None:
    profile = Profile.model_validate(document())
    profile.require_for(CLOUD, SCOUT)
    profile.require_for(CLOUD, None)
    with pytest.raises(ProfileError, match="another cloud model"):
        profile.require_for(SCOUT, SCOUT)
    with pytest.raises(ProfileError, match="not with this scout"):
        profile.require_for(CLOUD, CLOUD)


@pytest.mark.parametrize(
    ("retention", "expected"),
    [(0.1, 0.3), (0.2, 0.6), (0.3, 0.7), (0.4, 0.8), (0.7, 0.9), (1.0, 1.0)],
)
def test_quality_is_linear_between_measured_retentions(retention: float, expected: float) -> None:
    assert table().quality(Mode.SCOUT, Execution.EVICT, retention, 100) == pytest.approx(expected)


def test_above_the_highest_measured_retention_quality_stays() -> None:
    assert table().quality(Mode.SCOUT, Execution.SPARSE, 1.0, 100) == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("tokens", "expected"), [(1, 0.6), (499, 0.6), (500, 0.6), (501, 0.4), (90_000, 0.4)]
)
def test_a_length_takes_the_nearest_band(tokens: int, expected: float) -> None:
    assert table().quality(Mode.SCOUT, Execution.EVICT, 0.2, tokens) == pytest.approx(expected)


def test_a_table_without_a_mode_is_refused() -> None:
    rows = [entry for entry in document()["quality"] if entry["mode"] != "kv_int4"]
    with pytest.raises(ProfileError, match="kv_int4"):
        Profile.model_validate(document() | {"quality": rows}).quality_table()


def test_without_calibration_quality_only_rises_with_retention() -> None:
    assert not UNCALIBRATED.calibrated
    assert UNCALIBRATED.name == "uncalibrated"
    for mode, execution in (
        (Mode.KV_SELECT, Execution.EVICT),
        (Mode.SCOUT, Execution.EVICT),
        (Mode.SCOUT, Execution.SPARSE),
    ):
        values = [UNCALIBRATED.quality(mode, execution, step / 20, 300) for step in range(1, 21)]
        assert values == sorted(values)
        assert values[-1] == 1.0
        assert 0.0 < values[0] < 0.1


def with_int4(*rows: dict[str, Any]) -> QualityTable:
    """The document's table with these rows of kv_int4."""
    others = [found for found in document()["quality"] if found["mode"] != "kv_int4"]
    return Profile.model_validate(document() | {"quality": [*others, *rows]}).quality_table()


def test_of_several_codecs_the_least_is_expected() -> None:
    flat = row("kv_int4", 1.0, 0.9) | {"codec": "transform"}
    graded = row("kv_int4", 1.0, 0.8) | {"codec": "transform_graded"}

    def expected(table: QualityTable) -> float:
        return table.quality(Mode.KV_INT4, Execution.EVICT, 1.0, 100)

    assert expected(with_int4(graded)) < expected(with_int4(flat))
    for both in (with_int4(flat, graded), with_int4(graded, flat)):
        assert expected(both) == expected(with_int4(graded))


def test_a_profile_of_before_says_no_codecs_and_is_written_without() -> None:
    profile = Profile.model_validate(document())
    assert {found.codec for found in profile.quality} == {None}
    assert "codec" not in profile.model_dump_json(exclude_none=True)

"""What the edge's settings name is loaded and fits together, or is refused with what to change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import structlog

from edge_agent import hosting
from edge_agent.hosting import load_host
from edge_agent.settings import EdgeSettings
from scout_core.daemon.settings import load_settings
from scout_core.daemon.worker import TorchWorker
from scout_core.engine import Engine
from scout_core.engine.aligned_scout import ALIGNED
from scout_core.engine.options import EngineOptions
from scout_core.errors import ProfileError, SettingsError
from scout_core.models.profile import ModelRecord, Profile, QualityRecord, write_profile
from scout_core.models.quality import UNCALIBRATED
from scout_core.modes import Execution, Mode
from tests.support.tiny_models import foreign_tokenizer, save_tiny_model


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_model(tmp_path_factory.mktemp("cloud")))


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("scout")
    return str(save_tiny_model(folder, "gemma3", tokenizer=foreign_tokenizer()))


def profile_of(model: ModelRecord, kv_coding: str | None = None) -> Profile:
    """A profile of a pair that is twice the same model."""
    rows = tuple(
        QualityRecord(
            mode=mode,
            execution=execution,
            retention=1.0,
            context_tokens_low=1,
            context_tokens_high=512,
            quality=1.0,
            n=40,
            low=0.9,
            high=1.1,
        )
        for mode in Mode
        for execution in Execution
    )
    return Profile(
        schema_version=1,
        name="other",
        cloud=model,
        scout=model,
        quality=rows,
        data_sha256="0" * 64,
        data_description="none",
        kv_coding=kv_coding,
    )


@pytest.fixture
def other_profile(tmp_path: Path) -> Path:
    """A profile of models that nobody here has."""
    path = tmp_path / "profile.json"
    write_profile(profile_of(ModelRecord(name="other", fingerprint="0" * 64)), path)
    return path


def settings_of(**values: Any) -> EdgeSettings:
    return load_settings(EdgeSettings, None, {"threads": 1, "compute_dtype": "float32"} | values)


def test_a_scout_of_another_family_scores_the_replicas_tokens(cloud: str, foreign: str) -> None:
    host, models = load_host(settings_of(cloud_model=cloud, scout_model=foreign), TorchWorker())
    assert host.scout is not None
    assert host.scout.selector_name.endswith(ALIGNED)
    assert host.tokenizing is host.replica
    assert len(models) == 2


def test_the_clouds_tokenizer_can_be_held_without_its_model(cloud: str, foreign: str) -> None:
    settings = settings_of(cloud_model="", cloud_tokenizer=cloud, scout_model=foreign)
    host, models = load_host(settings, TorchWorker())
    assert host.replica is None
    assert host.tokenizing is host.tokenizer
    assert [model.name for model in models] == [foreign]


def test_two_sources_of_the_clouds_tokenizer_are_refused(cloud: str, foreign: str) -> None:
    settings = settings_of(cloud_model=cloud, cloud_tokenizer=cloud, scout_model=foreign)
    with pytest.raises(SettingsError, match="cloud_tokenizer"):
        load_host(settings, TorchWorker())


def test_a_configured_profile_of_other_models_is_refused(cloud: str, other_profile: Path) -> None:
    settings = settings_of(cloud_model=cloud, scout_model=cloud, profile=str(other_profile))
    with pytest.raises(ProfileError, match="scout calibrate"):
        load_host(settings, TorchWorker())


def test_the_bundled_profile_of_another_pair_is_left_out(
    cloud: str, other_profile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bundled(settings: EdgeSettings) -> Path:
        del settings
        return other_profile

    monkeypatch.setattr(hosting, "_bundled_profile", bundled)
    host, _ = load_host(settings_of(cloud_model=cloud, scout_model=cloud), TorchWorker())
    assert host.profile_name == UNCALIBRATED.name
    assert host.quality is UNCALIBRATED


@pytest.mark.parametrize(("coding", "said"), [(None, 0), ("plain groups", 0), ("another", 1)])
def test_a_profile_of_kv_coded_otherwise_is_used_and_the_log_says_so(
    cloud: str, tmp_path: Path, coding: str | None, said: int
) -> None:
    engine = Engine.load(EngineOptions(cloud, threads=1, compute_dtype="float32"))
    path = tmp_path / "profile.json"
    write_profile(profile_of(ModelRecord(name=cloud, fingerprint=engine.fingerprint), coding), path)
    with structlog.testing.capture_logs() as logs:
        host, _ = load_host(
            settings_of(cloud_model=cloud, scout_model=cloud, profile=str(path)), TorchWorker()
        )
    assert host.profile_name == "other"
    told = [line for line in logs if line["event"] == "profile_of_other_coding"]
    assert len(told) == said

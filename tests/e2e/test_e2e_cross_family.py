"""A scout of another family than the cloud's model, both daemons as processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon_process import SupervisedDaemon, run_scout, wait_for
from tests.support.testbed import CONTEXT, QUESTION
from tests.support.tiny_models import foreign_tokenizer, save_tiny_model

HOST_FLAGS = ("--compute-dtype", "float32", "--threads", "1", "--log-format", "json")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The cloud's model and a scout that splits text elsewhere."""
    cloud, scout = tmp_path_factory.mktemp("cloud"), tmp_path_factory.mktemp("scout")
    save_tiny_model(cloud)
    save_tiny_model(scout, "gemma3", tokenizer=foreign_tokenizer())
    return str(cloud), str(scout)


@pytest.fixture
def cloud(models: tuple[str, str], tmp_path: Path) -> Iterator[SupervisedDaemon]:
    with SupervisedDaemon("scout-cloud", tmp_path, "--model", models[0], *HOST_FLAGS) as daemon:
        yield daemon


def asked(cloud: SupervisedDaemon, folder: Path, *flags: str) -> dict[str, Any]:
    """The JSON document of one question through an edge with these flags."""
    context = folder / "context.txt"
    context.write_text(CONTEXT, encoding="utf-8")
    flags = ("--cloud", cloud.address, "--agent-id", "foreign", *HOST_FLAGS, *flags)
    with SupervisedDaemon("scout-edge", folder, *flags) as edge:

        def attached() -> bool:
            done = run_scout("status", edge.address, "--json")
            return done.returncode == 0 and bool(json.loads(done.stdout)["edge"].get("attached"))

        wait_for(attached)
        done = run_scout(
            *("ask", "--context", str(context), "--edge", edge.address, "--json"),
            *("--mode", "scout", "--retention", "0.5", "--max-tokens", "4", "--deadline", "20s"),
            QUESTION,
        )
    assert done.returncode == 0, done.stderr
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def test_characters_cross_without_the_clouds_tokenizer(
    models: tuple[str, str], cloud: SupervisedDaemon, tmp_path: Path
) -> None:
    facts = asked(cloud, tmp_path, "--cloud-model", "", "--scout-model", models[1])
    assert facts["position_unit"] == "characters"
    assert 0 < facts["kept_tokens"] < facts["context_tokens"]


def test_the_clouds_indices_cross_with_it(
    models: tuple[str, str], cloud: SupervisedDaemon, tmp_path: Path
) -> None:
    tokenizer = ("--cloud-model", "", "--cloud-tokenizer", models[0])
    facts = asked(cloud, tmp_path, *tokenizer, "--scout-model", models[1])
    assert facts["position_unit"] == "cloud_tokens"
    assert facts["selector"].endswith("aligned")
    assert facts["kept_tokens"] == -(-facts["context_tokens"] // 2)

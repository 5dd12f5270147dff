"""What ``scout bench codec`` refuses before it measures anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from scout_core.cli.bench_codec import command
from tests.support.tiny_models import save_tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


def test_lengths_that_are_no_numbers_are_refused() -> None:
    result = CliRunner().invoke(command, ["--context-tokens", "many"])
    assert result.exit_code == 2
    assert "whole numbers" in result.output


def test_answers_of_a_codec_that_is_not_compared_are_refused(folder: Path) -> None:
    arguments = ["--model", str(folder), "--f1-data", "rows.jsonl", "--f1-codecs", "transform_14"]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 2
    assert "not compared in this run: transform_14" in result.output

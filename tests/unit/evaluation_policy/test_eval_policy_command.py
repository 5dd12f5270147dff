"""``scout eval policy``: one JSON document, the promised fields, and pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from scout_core.cli.eval_policy import command
from scout_core.evaluation.policy_links import made_links
from scout_core.testbed.traces import save_trace

PROMISED = {
    "policy", "pair", "tech_class", "deadline_s", "context_tokens", "requests", "compliance",
    "quality", "utility", "ttft_p50_s", "ttft_p95_s", "bytes_mean",
}  # fmt: skip
POLICIES = {
    "fixed:kv_bf16", "fixed:kv_int8", "fixed:kv_int4", "fixed:kv_select", "fixed:scout",
    "tokens", "throughput", "robust_mpc", "ours", "oracle",
}  # fmt: skip


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    folder = tmp_path / "traces"
    folder.mkdir()
    for link in made_links()[::18]:
        save_trace(link.schedule, folder / f"{link.name}.csv")
    return folder


def test_json_is_one_document_with_the_promised_rows(traces: Path) -> None:
    result = CliRunner().invoke(command, ["--traces", str(traces), "--requests", "3", "--json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert {row["policy"] for row in document["rows"]} == POLICIES
    assert all(set(row) >= PROMISED for row in document["rows"])
    assert len({row["pair"] for row in document["rows"]}) == 4
    assert {row["predictor"] for row in document["estimator"]} == {
        "ours", "harmonic_mean_5", "ewma_2_5", "last_sample",
    }  # fmt: skip


def test_the_folder_may_come_from_the_environment(traces: Path) -> None:
    result = CliRunner(env={"SCOUT_TRACES": str(traces)}).invoke(
        command, ["--requests", "1", "--json"]
    )
    assert json.loads(result.stdout)["links"] == 2


def test_pictures_are_drawn_and_the_table_names_the_quality(traces: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plots = tmp_path / "plots"
    arguments = ["--traces", str(traces), "--requests", "3", "--plots", str(plots)]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    assert {path.name for path in plots.iterdir()} == {"latency_cdf.png", "mode_over_time.png"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in plots.iterdir())
    assert "bundled (quality: smollm2-135m-qa)" in result.stdout  # the shipped profile

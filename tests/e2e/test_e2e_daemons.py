"""Both daemons as processes, used as people and systemd use them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon_process import SCRIPTS, SupervisedDaemon, run_scout, wait_for
from tests.support.testbed import CONTEXT, QUESTION
from tests.support.tiny_models import save_tiny_model

HOST_FLAGS = ("--compute-dtype", "float32", "--threads", "1", "--log-format", "json")


PACED = ("--uplink-bytes-per-s", "40000", "--initial-credit-bytes", "8192")


@dataclass(frozen=True)
class Deployment:
    """A running pair and a file with a context."""

    cloud: SupervisedDaemon
    edge: SupervisedDaemon
    context: Path


def start(folder: Path) -> Iterator[Deployment]:
    """The cloud paces its credit, so that KV of 130 kB takes three seconds."""
    model = str(save_tiny_model(folder / "model"))
    context = folder / "context.txt"
    context.write_text(CONTEXT, encoding="utf-8")
    with (
        SupervisedDaemon("scout-cloud", folder, "--model", model, *HOST_FLAGS, *PACED) as cloud,
        SupervisedDaemon(
            "scout-edge",
            folder,
            *("--cloud", cloud.address, "--cloud-model", model, "--scout-model", model),
            *("--agent-id", "e2e", *HOST_FLAGS),
        ) as edge,
    ):
        wait_for(lambda: status(edge)["edge"].get("attached"))
        yield Deployment(cloud, edge, context)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    yield from start(tmp_path_factory.mktemp("pair"))


@pytest.fixture
def doomed_deployment(tmp_path: Path) -> Iterator[Deployment]:
    """For the test that ends it."""
    yield from start(tmp_path)


def status(daemon: SupervisedDaemon) -> dict[str, Any]:
    done = run_scout("status", daemon.address, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def ask_arguments(deployment: Deployment, *flags: str) -> tuple[str, ...]:
    where = ("--context", str(deployment.context), "--edge", deployment.edge.address)
    return ("ask", *where, "--max-tokens", "8", *flags, QUESTION)


def log_events(daemon: SupervisedDaemon) -> list[dict[str, Any]]:
    lines = daemon.log.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


@pytest.mark.parametrize("mode", ["kv_bf16", "scout"])
def test_ask_prints_one_json_document(mode: str, deployment: Deployment) -> None:
    arguments = ask_arguments(deployment, "--json", "--mode", mode, "--deadline", "20s")
    done = run_scout(*arguments)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["mode"] == mode
    assert facts["payload_bytes"] > 0
    assert facts["ttft_s"] > 0


def test_ask_without_json_prints_the_answer_and_one_line_of_accounting(
    deployment: Deployment,
) -> None:
    done = run_scout(*ask_arguments(deployment, "--deadline", "20s"))
    assert done.returncode == 0, done.stderr
    assert "payload bytes" in done.stderr
    assert "payload bytes" not in done.stdout


def test_status_of_both_daemons_is_json(deployment: Deployment) -> None:
    edge, cloud = status(deployment.edge)["edge"], status(deployment.cloud)["cloud"]
    assert edge["attached"]
    assert [agent["agent_id"] for agent in cloud["agents"]] == ["e2e"]
    assert edge["models"][0]["fingerprint"] == cloud["model"]["fingerprint"]


def test_mistake_of_the_caller_ends_with_one_sentence(deployment: Deployment) -> None:
    done = run_scout(*ask_arguments(deployment, "--retention", "1.5"))
    assert done.returncode == 1
    assert "Retention must be in (0, 1]" in done.stderr
    assert "Traceback" not in done.stderr


def test_killed_client_leaves_no_session_behind(deployment: Deployment) -> None:
    arguments = ask_arguments(deployment, "--mode", "kv_bf16", "--deadline", "60s")
    client = subprocess.Popen([str(SCRIPTS / "scout"), *arguments], stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: status(deployment.cloud)["cloud"].get("sessions") == 1)
        client.kill()
        wait_for(lambda: "sessions" not in status(deployment.cloud)["cloud"])
    finally:
        client.kill()
        client.wait()
    events = [line["event"] for line in log_events(deployment.cloud)]
    assert "session_cancelled" in events


def test_sigterm_lets_the_answer_finish_and_exits_with_zero(doomed_deployment: Deployment) -> None:
    cloud, edge = doomed_deployment.cloud, doomed_deployment.edge
    arguments = ask_arguments(doomed_deployment, "--mode", "kv_bf16", "--deadline", "60s", "--json")
    client = subprocess.Popen(
        [str(SCRIPTS / "scout"), *arguments], stdout=subprocess.PIPE, text=True
    )
    wait_for(lambda: status(cloud)["cloud"].get("sessions") == 1)
    cloud.terminate()
    edge.terminate()
    assert cloud.notice() == edge.notice() == "STOPPING=1\nSTATUS=draining"
    output, _ = client.communicate(timeout=30)
    assert client.returncode == 0
    assert json.loads(output)["mode"] == "kv_bf16"
    assert (cloud.exit_code(), edge.exit_code()) == (0, 0)
    for daemon in (cloud, edge):
        assert "daemon_stopped" in [line["event"] for line in log_events(daemon)]


@pytest.mark.parametrize("program", ["scout-cloud", "scout-edge"])
def test_print_config_shows_every_setting_and_serves_nothing(program: str, tmp_path: Path) -> None:
    file = tmp_path / "daemon.toml"
    file.write_text("max_requests = 3\n")
    done = run_daemon(program, "--config", str(file), "--log-level", "error", "--print-config")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert (shown["max_requests"], shown["log_level"]) == (3, "error")


def test_malformed_configuration_is_explained_and_nothing_starts(tmp_path: Path) -> None:
    file = tmp_path / "cloud.toml"
    file.write_text("# limits\nmax_requests = 'many'\n")
    done = run_daemon("scout-cloud", "--config", str(file))
    assert done.returncode == 1
    assert f"{file}, line 2: 'max_requests'" in done.stderr
    assert "valid integer" in done.stderr
    assert "SETTINGS_INVALID" in done.stderr
    assert "Traceback" not in done.stderr


def test_unknown_model_is_explained_and_nothing_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = run_daemon("scout-cloud", "--listen", "127.0.0.1:0", "--model", str(tmp_path / "none"))
    assert done.returncode == 1
    assert "UNKNOWN_MODEL" in done.stderr
    assert "Traceback" not in done.stderr


def run_daemon(program: str, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SCRIPTS / program), *flags], capture_output=True, text=True, timeout=60, check=False
    )

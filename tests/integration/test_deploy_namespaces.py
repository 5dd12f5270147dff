"""The namespace testbed: an edge reaches the link and nothing else, and nothing stays behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.programs import in_continuous_integration, required_program, run_program

SCRIPT = Path(__file__).resolve().parents[2] / "deploy" / "testbed" / "namespaces.sh"
PREFIX = f"scout-test-{os.getpid()}"
LISTEN = (
    "import socket; s = socket.create_server(('{address}', 7080)); print('up', flush=True); "
    "s.accept()"
)
CONNECT = "import socket; socket.create_connection(('{address}', 7080), 2).close()"


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run_program([SCRIPT, *arguments])


def _namespaces() -> set[str]:
    listed = run_program([required_program("ip"), "netns", "list"]).stdout
    return {line.split()[0] for line in listed.splitlines() if line.startswith(PREFIX)}


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    required_program("ip")
    if os.geteuid() != 0:
        assert not in_continuous_integration(), "continuous integration runs as root"
        pytest.skip("network namespaces need root")
    monkeypatch.setenv("SCOUT_TESTBED_PREFIX", PREFIX)
    monkeypatch.setenv("SCOUT_TESTBED_STATE", str(tmp_path))
    made = _run("network")
    try:
        assert made.returncode == 0, made.stderr
        yield
    finally:
        _run("down")


def _python(host: str, code: str) -> list[str]:
    ip = required_program("ip")
    return [ip, "netns", "exec", f"{PREFIX}-{host}", sys.executable, "-c", code]


def _reaches(host: str, listener: str, address: str) -> bool:
    """Whether a connection from ``host`` arrives at ``address`` of the ``listener``."""
    listen = _python(listener, LISTEN.format(address=address))
    with subprocess.Popen(listen, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "up\n"
            result = run_program(_python(host, CONNECT.format(address=address)))
            return result.returncode == 0
        finally:
            process.kill()


@pytest.mark.usefixtures("network")
def test_an_edge_reaches_the_link_and_the_link_the_cloud() -> None:
    assert _reaches("edge-2", "link", "10.77.2.1")
    assert _reaches("link", "cloud", "10.77.0.2")


@pytest.mark.usefixtures("network")
def test_an_edge_reaches_neither_the_cloud_nor_another_edge() -> None:
    assert not _reaches("edge-1", "cloud", "10.77.0.2")
    assert not _reaches("edge-1", "edge-2", "10.77.2.2")


@pytest.mark.usefixtures("network")
def test_down_leaves_no_namespace() -> None:
    hosts = ("cloud", "link", "edge-1", "edge-2", "edge-3")
    assert _namespaces() == {f"{PREFIX}-{host}" for host in hosts}
    assert _run("down").returncode == 0
    assert _namespaces() == set()


@pytest.mark.parametrize("arguments", [[], ["sideways"]])
def test_a_wrong_call_says_what_to_say(arguments: list[str]) -> None:
    result = _run(*arguments)
    assert result.returncode == 2
    assert "say up, network, ask, status or down" in result.stderr

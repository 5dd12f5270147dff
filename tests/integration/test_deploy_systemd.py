"""The systemd units are valid, hardened, and agree with the daemons' settings."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest

from cloud_server.settings import CloudSettings
from edge_agent.settings import EdgeSettings
from tests.support.programs import required_program, run_program

SYSTEMD = Path(__file__).resolve().parents[2] / "deploy" / "systemd"
DAEMONS = ["cloud", "edge"]
MOST_EXPOSURE = 20
"""Of 100, by systemd's own count; a service without any setting has 96."""
DROP_INS = ["gpu.conf", "tls-{daemon}.conf"]


def _install(daemon: str, folder: Path, drop_ins: list[str]) -> Path:
    """The unit as it would be installed, with a program that exists on this host."""
    program = folder / f"scout-{daemon}"
    program.write_text("#!/bin/sh\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    text = (SYSTEMD / f"scout-{daemon}.service").read_text()
    resolved = text.replace(f"/opt/scout/bin/scout-{daemon}", str(program))
    assert resolved != text
    unit = folder / f"scout-{daemon}.service"
    unit.write_text(resolved)
    for name in drop_ins:
        target = folder / f"scout-{daemon}.service.d" / name.format(daemon=daemon)
        target.parent.mkdir(exist_ok=True)
        target.write_text((SYSTEMD / target.name).read_text())
    return unit


@pytest.mark.parametrize("daemon", DAEMONS)
@pytest.mark.parametrize("drop_ins", [[], DROP_INS], ids=["plain", "with_drop_ins"])
def test_unit_is_valid(daemon: str, drop_ins: list[str], tmp_path: Path) -> None:
    analyze = required_program("systemd-analyze")
    unit = _install(daemon, tmp_path, drop_ins)
    result = run_program([analyze, "verify", "--man=no", unit])
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


def test_an_invalid_unit_is_noticed(tmp_path: Path) -> None:
    analyze = required_program("systemd-analyze")
    unit = _install("cloud", tmp_path, [])
    unit.write_text(unit.read_text().replace("WatchdogSec=", "WatchdogSeconds="))
    result = run_program([analyze, "verify", "--man=no", unit])
    assert "WatchdogSeconds" in result.stdout + result.stderr


@pytest.mark.parametrize("daemon", DAEMONS)
def test_unit_exposes_little(daemon: str, tmp_path: Path) -> None:
    analyze = required_program("systemd-analyze")
    unit = _install(daemon, tmp_path, [])
    command = [analyze, "security", "--offline=true", "--no-pager"]
    result = run_program([*command, f"--threshold={MOST_EXPOSURE}", unit])
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("daemon", DAEMONS)
def test_stop_timeout_leaves_room_for_the_drain(daemon: str) -> None:
    text = (SYSTEMD / f"scout-{daemon}.service").read_text()
    match = re.search(r"^TimeoutStopSec=(\d+)s$", text, re.MULTILINE)
    assert match is not None
    drain_timeout_s = CloudSettings.model_fields["drain_timeout_s"].default
    assert float(match[1]) > drain_timeout_s


@pytest.mark.parametrize("daemon", DAEMONS)
def test_tls_drop_in_sets_known_settings(daemon: str) -> None:
    text = (SYSTEMD / f"tls-{daemon}.conf").read_text()
    variables = re.findall(r"^Environment=(\w+)=", text, re.MULTILINE)
    fields = {"cloud": CloudSettings, "edge": EdgeSettings}[daemon].model_fields
    known = {f"SCOUT_{daemon.upper()}_{name.upper()}" for name in fields}
    assert len(variables) == 3
    assert set(variables) <= known
    credentials = set(re.findall(r"^LoadCredential=([\w.-]+):", text, re.MULTILINE))
    assert set(re.findall(r"=%d/([\w.-]+)$", text, re.MULTILINE)) == credentials

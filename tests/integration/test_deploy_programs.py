"""Under CI no deployment test may skip for lack of a program; scripts pass a linter."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import programs

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = [ROOT / ".ci" / "run", *sorted((ROOT / "deploy").rglob("*.sh"))]
PROGRAMS = ["docker-compose", "ip", "make", "openssl", "shellcheck", "systemd-analyze"]


@pytest.mark.parametrize("name", PROGRAMS)
def test_continuous_integration_has_every_program(name: str) -> None:
    if not programs.in_continuous_integration():
        pytest.skip("only continuous integration promises every program")
    assert programs.required_program(name)


@pytest.mark.parametrize("name", PROGRAMS)
def test_continuous_integration_installs_every_program(name: str) -> None:
    assert f"[{name}]=" in (ROOT / ".ci" / "run").read_text()


def test_an_absent_program_skips_for_people_and_fails_in_continuous_integration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CI", "")
    with pytest.raises(pytest.skip.Exception, match="no-such-program is not installed"):
        programs.required_program("no-such-program")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no-such-program is not installed"):
        programs.required_program("no-such-program")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_script_passes_the_shell_linter(script: Path) -> None:
    result = programs.run_program([programs.required_program("shellcheck"), script])
    assert result.returncode == 0, result.stdout

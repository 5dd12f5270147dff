"""The make targets say what is wrong: an old Python, generated code that drifted."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.programs import required_program, run_program

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = ".venv/.installed"
TARGETS = [
    "setup",
    "demo",
    "test",
    "check",
    "proto",
    "lint",
    "types",
    "drift",
    "bench",
    "eval",
    "clean",
]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what `make drift` reads, with this environment as its .venv."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "proto", tmp_path / "proto")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    return tmp_path


def _make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # --old-file: this environment counts as installed, whatever its age.
    return run_program(
        [required_program("make"), f"--old-file={INSTALLED}", *arguments], folder=folder
    )


def test_generated_code_is_what_the_contract_generates(checkout: Path) -> None:
    result = _make(checkout, "drift")
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_changed_contract_without_generated_code_is_caught(checkout: Path) -> None:
    contract = checkout / "proto" / "scout" / "v1" / "types.proto"
    contract.write_text(contract.read_text() + "\nmessage Unexpected {}\n")
    result = _make(checkout, "drift")
    assert result.returncode != 0
    assert "run 'make proto' and commit" in result.stderr
    assert _make(checkout, "proto").returncode == 0
    assert _make(checkout, "drift").returncode == 0


def test_a_contract_file_without_generated_code_is_caught(checkout: Path) -> None:
    (checkout / "proto" / "gen" / "scout" / "v1" / "types_pb2.pyi").unlink()
    assert _make(checkout, "drift").returncode != 0


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ('[ "$1" != -c ] && echo "Python 3.9.2"; exit 1', "needs Python 3.11 or newer"),
        ('case "$2" in *version_info*) exit 0;; *) exit 1;; esac', "python3-venv"),
    ],
    ids=["too_old", "without_venv"],
)
def test_an_unfit_python_is_explained(program: str, message: str, tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{program}\n")
    python.chmod(0o755)
    result = run_program([required_program("make"), "setup", f"PYTHON={python}"], folder=tmp_path)
    assert result.returncode != 0
    assert message in result.stderr
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize("target", TARGETS)
def test_target_exists_and_is_explained(target: str) -> None:
    assert _make(ROOT, "--dry-run", target).returncode == 0
    assert f"#   make {target} " in (ROOT / "Makefile").read_text()

"""System programs that tests call: absent, a test skips on a person's machine and fails in CI.

Owns that decision. Knows no particular program.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

# Debian keeps administrators' programs (ip) where an ordinary user's PATH does not look.
SEARCH_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
RUN_TIMEOUT_S = 60


def in_continuous_integration() -> bool:
    """Whether nothing may be skipped for lack of a program."""
    return os.environ.get("CI", "").lower() in {"1", "true"}


def required_program(name: str) -> str:
    """The program's path; without it, the calling test skips, and under CI fails."""
    path = shutil.which(name, path=SEARCH_PATH)
    if path is not None:
        return path
    reason = f"{name} is not installed"
    if in_continuous_integration():
        pytest.fail(f"{reason}; .ci/run installs what the tests call")
    pytest.skip(reason)


def run_program(
    command: Sequence[str | Path], *, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end, bounded, with its output captured and its exit status unjudged."""
    return subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )

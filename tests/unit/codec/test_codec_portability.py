"""Every codec writes and reads the same bytes on every host, in every version, compiled or not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.coded_digests import digests

REPOSITORY = Path(__file__).parents[3]
KNOWN = {
    "raw_bf16 5x64": "669dbe8f0f948b8a",
    "int8_groups 5x64": "0259f62a799304d7",
    "int4_groups 5x64": "40f6ec703c3e732a",
    "lossless_bf16 5x64": "fac5136e3c96a2de",
    "embedded_bf16 5x64": "d062c5631b58e6dc",
    "raw_bf16 34x6": "a1bd86d59c710ba1",
    "int8_groups 34x6": "f6542eee465ba418",
    "int4_groups 34x6": "846ddb6065b12856",
    "lossless_bf16 34x6": "cfb2c64c9d244784",
    "embedded_bf16 34x6": "7bf0e12e6e3d7a11",
    "raw_bf16 1x128": "0cafdc33f0524e82",
    "int8_groups 1x128": "63f48f9553bbfa8e",
    "int4_groups 1x128": "5308abcdc47b7787",
    "lossless_bf16 1x128": "ffcf9b7c72eeeb2d",
    "embedded_bf16 1x128": "db85ca8d93ba527f",
}
"""Of the format versions in README.md, made on x86-64. Another digest is another format: give it a
new version, or on another processor report what differs."""


def test_payloads_and_caches_are_those_of_the_written_format() -> None:
    found = digests()
    assert {name: found[name] for name in KNOWN} == KNOWN


@pytest.mark.timeout(300)  # a few seconds on an idle core
def test_loops_run_by_the_interpreter_give_the_bytes_of_the_compiled_ones() -> None:
    """The pure fallback of every compiled loop, the transform's included, is its own source."""
    interpreted = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.support.coded_digests"],
        cwd=REPOSITORY,
        env={**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
    )
    assert json.loads(interpreted.stdout) == digests()

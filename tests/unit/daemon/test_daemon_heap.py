"""Messages and tensors that come and go must not cost their pages each time."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
from scout_core.daemon.heap import keep_freed_memory

def faults_per_message():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(100):
        messages = [b"x" * 245_760 for _ in range(12)]
        del messages
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 1200

before = faults_per_message()
keep_freed_memory()
print(before, faults_per_message())
"""


TENSORS = """
import resource
from scout_core.daemon.heap import keep_all_freed_memory

def faults_per_tensor():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        tensor = b"x" * 80_000_000
        del tensor
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 10

before = faults_per_tensor()
keep_all_freed_memory()
faults_per_tensor()
print(before, faults_per_tensor())
"""


def printed(program: str) -> list[float]:
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    return [float(word) for word in run.stdout.split()]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these limits")
def test_freed_messages_leave_their_pages_to_the_next_ones() -> None:
    before, after = printed(PROGRAM)
    assert before > 10.0
    assert after < 0.1 * before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these limits")
def test_tensors_larger_than_any_limit_leave_their_pages_too() -> None:
    before, after = printed(TENSORS)
    assert before > 100.0
    assert after < 0.1 * before

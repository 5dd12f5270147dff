"""Timing one piece of work, for the measurements that daemons make at start."""

from __future__ import annotations

import time
from collections.abc import Callable


def seconds_of(work: Callable[[], object]) -> float:
    """Seconds that ``work`` takes; its result is dropped."""
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s

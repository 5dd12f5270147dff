"""How this room compiles its loops, and how it runs them on several cores.

Owns the choices every kernel shares: no Python lock held, IEEE arithmetic in the written order (no
fast-math, so that every host computes the same bits), machine code cached on disk where there is
a place to write it. Why numba: the same loops in numpy or torch reach 0.4 to 2 GB/s, compiled ones
10 and more (``scout bench codec`` prints both); it ships wheels for x86-64 and aarch64, and needs
no compiler on the host. It is a core dependency: the reference paths in numpy define the
format and are what the loops are tested against.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, Final

from numba import njit

Loop = Callable[..., Any]

LEAST_SLICE_BYTES: Final = 1 << 20
"""Below a mebibyte a thread costs more than it saves (about 50 µs to hand over and join)."""
_limit: ContextVar[int] = ContextVar("threads of a codec call", default=sys.maxsize)


def compiled(loop: Loop) -> Loop:
    """Compiles a loop on first call; the machine code is cached where the host allows it."""
    return _compiled(loop)


def compiled_with_fused_sums(loop: Loop) -> Loop:
    """The same for a loop whose products are all exact: adding to one may be a single instruction
    where the host has it, and gives the same bits."""
    return _compiled(loop, fastmath={"contract"})


def _compiled(loop: Loop, **options: Any) -> Loop:
    try:
        return njit(nogil=True, cache=True, **options)(loop)
    except RuntimeError:  # numba found no folder that it may write its cache to
        return njit(nogil=True, **options)(loop)


def inlined(loop: Loop) -> Loop:
    """Compiles a piece of a loop into each of its callers."""
    return njit(nogil=True, inline="always")(loop)


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_threads() -> int:
    """Threads that a call may use: the cores, or fewer within ``at_most_threads``."""
    return min(cores(), _limit.get())


@contextmanager
def at_most_threads(count: int) -> Generator[None]:
    """Limits the codecs called within, in this thread or task, to so many threads."""
    token = _limit.set(max(1, count))
    try:
        yield
    finally:
        _limit.reset(token)


def run_sliced(task: Callable[[int, int], bool], items: int, work_bytes: int, threads: int) -> bool:
    """Runs ``task(first, last)`` over slices of ``range(items)``; whether all returned True."""
    slices = max(1, min(threads, items, work_bytes // LEAST_SLICE_BYTES))
    if slices == 1:
        return task(0, items)
    bounds = [items * index // slices for index in range(slices + 1)]
    jobs = [_pool().submit(task, bounds[index], bounds[index + 1]) for index in range(1, slices)]
    results = [task(bounds[0], bounds[1]), *(job.result() for job in jobs)]
    return all(results)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=cores(), thread_name_prefix="scout-codec")

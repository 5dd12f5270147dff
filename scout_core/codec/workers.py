"""Threads that each do whole pieces of work, matrix products included, on one core.

Owns the pool. torch spreads a product over all cores and lets idle ones spin at its barrier; with
many independent pieces it is faster to give each core its own, and no core waits for another.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier
from typing import Final, TypeVar

import torch

from scout_core.codec.compiled import cores, default_threads

Result = TypeVar("Result")


LEAST_BYTES: Final = 1 << 16
"""Below this a caller does its own work: handing it over would take longer."""


def run_each(task: Callable[[int], Result], items: int, work_bytes: int) -> list[Result]:
    """``task(0)``, ``task(1)``, … on the threads that the caller may use; the results in order.

    Raises:
        Exception: the first one that a task raised.
    """
    if work_bytes < LEAST_BYTES:
        return [task(index) for index in range(items)]
    threads = min(default_threads(), items)

    def share(first: int) -> list[Result]:
        return [task(index) for index in range(first, items, threads)]

    shares = list(_pool().map(share, range(threads)))
    return [shares[index % threads][index // threads] for index in range(items)]


@cache
def _pool() -> ThreadPoolExecutor:
    """A pool whose threads have torch at one thread; every other thread keeps what it had.

    ``torch.set_num_threads`` sets the calling thread's count, and the one that threads started
    later begin with; the latter is put back.
    """
    size = cores()
    usual = torch.get_num_threads()
    started = Barrier(size)

    def alone(_index: int) -> None:
        torch.get_num_threads()  # or else the first product here would set the thread's count
        torch.set_num_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(max_workers=size, thread_name_prefix="scout-codec-matrix")
    for ready in [pool.submit(alone, index) for index in range(size)]:
        ready.result()
    torch.set_num_threads(usual)
    return pool

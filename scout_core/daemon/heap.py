"""Freed memory that a process keeps, because it will need as much again at once.

The C library hands the top of its heap back to the kernel whenever more than a little of it is
free, and a payload's messages are a few hundred kilobytes each, made and dropped a thousand times a
second: every page of every message is then asked for, and zeroed, again. On glibc the limits follow
the largest mapping that was freed (mallopt(3), M_MMAP_THRESHOLD): up to 32 MiB for what is taken
from the heap at all, and twice that for what stays in it. A process that has freed a large tensor
is there already; here it is there from its first message on.

A study on a CPU takes and drops tensors of hundreds of megabytes, each of them a mapping of its own
whatever was freed before; it may keep them all.
"""

from __future__ import annotations

import ctypes
from typing import Final

LARGEST_HEAP_BLOCK_BYTES: Final = 32 * 1024 * 1024
HEADER_ROOM_BYTES: Final = 8192
"""The mapping is this much smaller than the largest that counts: it has headers, in whole pages."""

M_TRIM_THRESHOLD: Final = -1
M_MMAP_MAX: Final = -4
"""Parameters of mallopt(3): what may stay free at the heap's top, how many mappings are made."""


def keep_freed_memory() -> None:
    """Lets the heap keep up to 64 MiB that are free; costs nothing, as no page is touched.

    Without effect on C libraries that have no such limits.
    """
    bytes(LARGEST_HEAP_BLOCK_BYTES - HEADER_ROOM_BYTES)


def keep_all_freed_memory() -> None:
    """Lets the heap keep all that was ever taken, however large: for a process that runs one study.

    Without effect on C libraries that have no such limits.
    """
    set_limit = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_limit is not None:
        set_limit(M_MMAP_MAX, 0)
        set_limit(M_TRIM_THRESHOLD, -1)  # never

"""Freed memory that a process keeps, because it will need as much again at once.

The C library hands the top of its heap back to the kernel whenever more than a little of it is
free, and a payload's messages are a few hundred kilobytes each, made and dropped a thousand times a
second: every page of every message is then asked for, and zeroed, again. On glibc the limits follow
the largest mapping that was freed (mallopt(3), M_MMAP_THRESHOLD): up to 32 MiB for what is taken
from the heap at all, and twice that for what stays in it. A process that has freed a large tensor
is there already; here it is there from its first message on.
"""

from __future__ import annotations

from typing import Final

LARGEST_HEAP_BLOCK_BYTES: Final = 32 * 1024 * 1024
HEADER_ROOM_BYTES: Final = 8192
"""The mapping is this much smaller than the largest that counts: it has headers, in whole pages."""


def keep_freed_memory() -> None:
    """Lets the heap keep up to 64 MiB that are free; costs nothing, as no page is touched.

    Without effect on C libraries that have no such limits.
    """
    bytes(LARGEST_HEAP_BLOCK_BYTES - HEADER_ROOM_BYTES)

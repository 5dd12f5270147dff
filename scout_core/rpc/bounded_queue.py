"""A queue bounded by the bytes in it, with an end, and a consumer that can be woken by time.

What passes between the tasks around a stream passes through one of these. It knows neither streams
nor messages.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Generic, TypeVar

import grpc

ItemT = TypeVar("ItemT")


class StreamEnded(Exception):  # noqa: N818 - an end is not an error; only Finish commits anything
    """The peer half-closed, or the stream broke (``failure`` says how)."""

    def __init__(self, failure: grpc.aio.AioRpcError | None = None) -> None:
        super().__init__("stream ended")
        self.failure = failure


class BoundedQueue(Generic[ItemT]):
    """FIFO bounded by the total size of its items; one consumer, any number of producers.

    ``put`` waits for room (an item larger than the bound is admitted when the queue is empty);
    ``post`` never waits and is for small local items. After ``close`` the remaining items can
    still be taken; then ``get`` raises StreamEnded, as ``put`` does at once.

    Every message of a session passes through one or two of these, so a wait that is not needed
    costs nothing: no event, no timer, no task.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._items: deque[tuple[ItemT, int]] = deque()
        self._held_bytes = 0
        self._consumer: asyncio.Future[None] | None = None
        self._producers: list[asyncio.Future[None]] = []
        self._end: StreamEnded | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due_s = 0.0

    @property
    def held_bytes(self) -> int:
        return self._held_bytes

    def __len__(self) -> int:
        return len(self._items)

    def offer(self, item: ItemT, size_bytes: int) -> bool:
        """Adds the item if there is room; False: there is none now.

        Raises:
            StreamEnded: the queue is closed.
        """
        if self._end is not None:
            raise self._end
        if self._held_bytes and self._held_bytes + size_bytes > self._limit_bytes:
            return False
        self.post(item, size_bytes)
        return True

    async def put(self, item: ItemT, size_bytes: int) -> None:
        while not self.offer(item, size_bytes):
            await self._relieved()

    def post(self, item: ItemT, size_bytes: int = 0) -> None:
        self._items.append((item, size_bytes))
        self._held_bytes += size_bytes
        self._wake_consumer()

    async def get(self) -> ItemT:
        while not self._items:
            await self._filled()
        return self._take()

    async def get_until(self, deadline_s: float | None) -> ItemT | None:
        """Like ``get``; None when ``time.monotonic`` reaches ``deadline_s`` first, or earlier, if
        the queue was stirred or hastened: look what is due."""
        if not self._items:
            if deadline_s is not None and not self._will_wake_by(deadline_s):
                return None
            await self._filled()
        return self._take() if self._items else None

    def take(self) -> ItemT | None:
        """An item that is there; None: there is none now.

        Raises:
            StreamEnded: none will come any more.
        """
        if self._items:
            return self._take()
        if self._end is not None:
            raise self._end
        return None

    async def filled(self) -> None:
        """Waits for an item, the end, the timer or ``stir``; the caller looks which it was.

        Raises:
            StreamEnded: the queue was closed and is empty.
        """
        if not self._items:
            await self._filled()

    def stir(self) -> None:
        """Wakes the consumer with nothing in hand: something else has changed."""
        self._wake_consumer()

    def hasten(self, deadline_s: float) -> None:
        """Wakes the consumer at ``deadline_s`` (``time.monotonic``) or before."""
        if not self._will_wake_by(deadline_s):
            self._wake_consumer()

    def close(self, end: StreamEnded | None = None) -> None:
        self._end = self._end or end or StreamEnded()
        self._wake_consumer()
        self._relieve()
        if self._timer is not None:
            self._timer.cancel()

    async def drained(self) -> None:
        """Waits until everything has been taken, or the queue is closed."""
        while self._items and self._end is None:
            await self._relieved()

    def _take(self) -> ItemT:
        item, size_bytes = self._items.popleft()
        self._held_bytes -= size_bytes
        self._relieve()
        return item

    def _relieve(self) -> None:
        if self._producers:
            for producer in self._producers:
                _wake(producer)
            self._producers.clear()

    def _wake_consumer(self) -> None:
        if self._consumer is not None:
            _wake(self._consumer)

    def _will_wake_by(self, deadline_s: float) -> bool:
        """Sees to it that the consumer wakes at the deadline or before; False: it has passed.

        A timer that is due earlier is kept: deadlines move on with every message, and waking once
        too often in a while is cheaper than a new timer for each.
        """
        if self._timer is not None:
            if self._timer_due_s <= deadline_s:
                return True
            self._timer.cancel()
            self._timer = None
        wait_s = deadline_s - time.monotonic()
        if wait_s <= 0.0:
            return False
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._on_timer)
        self._timer_due_s = deadline_s
        return True

    def _on_timer(self) -> None:
        self._timer = None
        self._wake_consumer()

    async def _filled(self) -> None:
        """Waits for an item, the end or the timer; the caller looks which it was."""
        if self._end is not None:
            raise self._end
        self._consumer = asyncio.get_running_loop().create_future()
        try:
            await self._consumer
        finally:
            self._consumer = None

    async def _relieved(self) -> None:
        producer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._producers.append(producer)
        await producer


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)

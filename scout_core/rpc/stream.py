"""One bidirectional stream as two tasks around bounded queues.

This module knows bytes, not messages. Messages cross it already serialised, so that what is
counted is what crosses the link. The rules come from STYLE's traps: an independent reader, so that
both sides may write (3); one write at a time (4); no timeout on ``read`` itself, only on the
queue behind it (6); a peer that stops reading fills the outbox and is told so, not waited for.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Final, Generic, Protocol, Self, TypeVar

import grpc
import structlog

from scout_core.errors import PeerTimeoutError, SlowConsumerError

DEFAULT_INBOX_BYTES: Final = 2 * 1024 * 1024
DEFAULT_OUTBOX_BYTES: Final = 1024 * 1024
DEFAULT_WRITE_TIMEOUT_S: Final = 20.0

ItemT = TypeVar("ItemT")
log = structlog.get_logger("scout.rpc")


class ByteStream(Protocol):
    """What grpc.aio's call (client) and context (server) have in common for identity codecs."""

    async def read(self) -> object:
        """The next message as bytes, or ``grpc.aio.EOF`` at the end of the stream."""
        ...

    async def write(self, message: bytes, /) -> None:
        """Hands one serialised message to grpc; returning says nothing about delivery."""
        ...


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


def _no_source() -> bytes | None:
    return None


class StreamWriter:
    """The one task that writes to a stream; use as ``async with``.

    Messages are queued, or come from ``source`` whenever the stream can take one and none is
    queued: what is large is made only then, and never waits here. A source that had nothing is
    asked again after ``pull``.

    On leaving the block the task is cancelled; ``flush`` first where everything sent must have
    been handed to grpc.
    """

    def __init__(
        self,
        stream: ByteStream,
        *,
        outbox_bytes: int = DEFAULT_OUTBOX_BYTES,
        write_timeout_s: float = DEFAULT_WRITE_TIMEOUT_S,
        source: Callable[[], bytes | None] = _no_source,
    ) -> None:
        self._stream = stream
        self._source = source
        self._outbox: BoundedQueue[bytes] = BoundedQueue(outbox_bytes)
        self._write_timeout_s = write_timeout_s
        self._is_writing = False
        self._idle: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None
        self.sent_bytes = 0

    def start(self) -> None:
        """Starts the task; ``async with`` does this by itself."""
        self._task = asyncio.create_task(self._write())

    async def stop(self) -> None:
        """Ends the task; what was not yet handed to grpc is dropped."""
        self._outbox.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def send(self, message: bytes) -> None:
        """Queues one message.

        Raises:
            SlowConsumerError: the peer has not read for the write timeout.
            StreamEnded: the stream broke; nothing more can be sent.
        """
        if not self._outbox.offer(message, len(message)):
            try:
                async with asyncio.timeout(self._write_timeout_s):
                    await self._outbox.put(message, len(message))
            except TimeoutError:
                raise self._slow_consumer() from None
        self.sent_bytes += len(message)

    def pull(self) -> None:
        """The source may have something now."""
        self._outbox.stir()

    def offer(self, message: bytes) -> bool:
        """Queues one message if there is room for it now; False: the peer reads too slowly.

        Raises:
            StreamEnded: the stream broke; nothing more can be sent.
        """
        queued = self._outbox.offer(message, len(message))
        self.sent_bytes += len(message) if queued else 0
        return queued

    async def flush(self) -> None:
        """Waits until every queued message has been handed to grpc.

        Raises:
            SlowConsumerError: the peer has not read for the write timeout.
        """
        try:
            async with asyncio.timeout(self._write_timeout_s):
                await self._outbox.drained()
                self._idle = self._idle or asyncio.Event()
                while self._is_writing:
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            raise self._slow_consumer() from None

    def _slow_consumer(self) -> SlowConsumerError:
        return SlowConsumerError(
            f"The peer has not read for {self._write_timeout_s:g} s; the stream is closed."
        )

    async def _write(self) -> None:
        while True:
            message = self._outbox.take() or self._source()
            if message is None:
                await self._outbox.filled()
                continue
            self._is_writing = True
            try:
                await self._stream.write(message)
            except (grpc.aio.AioRpcError, grpc.aio.BaseError, asyncio.InvalidStateError) as failure:
                # The stream is over (trap 4); the reader learns why from the status.
                log.debug("stream_write_failed", cause=type(failure).__name__)
                self._outbox.close()
                return
            finally:
                self._is_writing = False
                if self._idle is not None:
                    self._idle.set()


async def read_stream(stream: ByteStream) -> bytes:
    """One message.

    Raises:
        StreamEnded: half-close, cancel or a broken stream.
    """
    try:
        message = await stream.read()
    except grpc.aio.AioRpcError as failure:
        raise StreamEnded(failure) from failure
    except (grpc.aio.BaseError, asyncio.InvalidStateError) as failure:
        log.debug("stream_read_failed", cause=type(failure).__name__)
        raise StreamEnded from failure
    if not isinstance(message, bytes):  # grpc.aio.EOF
        raise StreamEnded
    return message


class StreamPump(StreamWriter):
    """A writer and a reader task with a bounded inbox, for conversations of small messages."""

    def __init__(self, stream: ByteStream, *, inbox_bytes: int, outbox_bytes: int) -> None:
        super().__init__(stream, outbox_bytes=outbox_bytes)
        self._inbox: BoundedQueue[bytes] = BoundedQueue(inbox_bytes)
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        await super().__aexit__(kind, error, trace)

    async def receive_until(self, deadline_s: float) -> bytes | None:
        """The next message; None when ``time.monotonic`` reaches ``deadline_s`` first.

        Raises:
            StreamEnded: no more messages will come.
        """
        while (message := await self._inbox.get_until(deadline_s)) is None:
            if time.monotonic() >= deadline_s:
                return None
        return message

    async def receive(self, timeout_s: float) -> bytes:
        """The next message.

        Raises:
            StreamEnded: no more messages will come.
            PeerTimeoutError: the peer sent nothing for ``timeout_s``.
        """
        message = await self.receive_until(time.monotonic() + timeout_s)
        if message is None:
            raise PeerTimeoutError(
                f"The peer sent nothing for {timeout_s:g} s; check the link and retry."
            )
        return message

    async def _read(self) -> None:
        try:
            while True:
                message = await read_stream(self._stream)
                await self._inbox.put(message, len(message))
        except StreamEnded as end:
            self._inbox.close(end)

"""One bidirectional stream as two tasks: a reader that fills a bounded inbox, a writer that
empties a bounded outbox.

This module knows bytes, not messages. Messages cross it already serialised, so that what is
counted is what crosses the link. The rules come from STYLE's traps: an independent reader, so that
both sides may write (3); one write at a time (4); no timeout on ``read`` itself, only on the
queue behind it (6); a peer that stops reading fills the outbox and is told so, not waited for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import Final, Protocol, Self

import grpc
import structlog

from scout_core.errors import PeerTimeoutError, SlowConsumerError

DEFAULT_INBOX_BYTES: Final = 4 * 1024 * 1024
DEFAULT_OUTBOX_BYTES: Final = 1024 * 1024
DEFAULT_WRITE_TIMEOUT_S: Final = 20.0

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


class BoundedBytes:
    """FIFO of byte strings, bounded by their total size; one waiter on each side.

    A message larger than the bound is admitted when the queue is empty.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._items: deque[bytes] = deque()
        self._held_bytes = 0
        self._changed = asyncio.Condition()
        self._end: StreamEnded | None = None

    @property
    def held_bytes(self) -> int:
        return self._held_bytes

    async def put(self, item: bytes) -> None:
        """Appends when there is room; raises StreamEnded once the queue is closed."""
        async with self._changed:
            while self._held_bytes and self._held_bytes + len(item) > self._limit_bytes:
                if self._end is not None:
                    break
                await self._changed.wait()
            if self._end is not None:
                raise self._end
            self._items.append(item)
            self._held_bytes += len(item)
            self._changed.notify_all()

    async def get(self) -> bytes:
        """The oldest item; raises StreamEnded once the queue is empty and closed."""
        async with self._changed:
            while not self._items:
                if self._end is not None:
                    raise self._end
                await self._changed.wait()
            item = self._items.popleft()
            self._held_bytes -= len(item)
            self._changed.notify_all()
            return item

    async def close(self, end: StreamEnded) -> None:
        async with self._changed:
            self._end = end
            self._changed.notify_all()

    async def drained(self) -> None:
        """Waits until everything has been taken, or the queue is closed."""
        async with self._changed:
            while self._items and self._end is None:
                await self._changed.wait()


class StreamPump:
    """Reader and writer task around one stream; use as ``async with``.

    ``receive`` and ``send`` are each for one task. On leaving the block both tasks are cancelled;
    call ``flush`` first where everything sent must have been handed to grpc.
    """

    def __init__(
        self,
        stream: ByteStream,
        *,
        inbox_bytes: int = DEFAULT_INBOX_BYTES,
        outbox_bytes: int = DEFAULT_OUTBOX_BYTES,
        write_timeout_s: float = DEFAULT_WRITE_TIMEOUT_S,
    ) -> None:
        self._stream = stream
        self._inbox = BoundedBytes(inbox_bytes)
        self._outbox = BoundedBytes(outbox_bytes)
        self._write_timeout_s = write_timeout_s
        self._tasks: list[asyncio.Task[None]] = []
        self._write_idle = asyncio.Event()
        self._write_idle.set()
        self.received_bytes = 0
        self.sent_bytes = 0

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._write())]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def receive(self, timeout_s: float | None = None) -> bytes:
        """The next message.

        Raises:
            StreamEnded: no more messages will come.
            PeerTimeoutError: the peer sent nothing for ``timeout_s``.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._inbox.get()
        except TimeoutError:
            raise PeerTimeoutError(
                f"The peer sent nothing for {timeout_s:g} s; check the link and retry."
            ) from None

    async def send(self, message: bytes) -> None:
        """Queues one message for the writer.

        Raises:
            SlowConsumerError: the peer has not read for the write timeout.
            StreamEnded: the stream broke; nothing more can be sent.
        """
        try:
            async with asyncio.timeout(self._write_timeout_s):
                await self._outbox.put(message)
        except TimeoutError:
            raise SlowConsumerError(
                f"The peer has not read for {self._write_timeout_s:g} s; the stream is closed."
            ) from None
        self.sent_bytes += len(message)

    async def flush(self) -> None:
        """Waits until every queued message has been handed to grpc."""
        try:
            async with asyncio.timeout(self._write_timeout_s):
                await self._outbox.drained()
                await self._write_idle.wait()
        except TimeoutError:
            raise SlowConsumerError(
                f"The peer has not read for {self._write_timeout_s:g} s; the stream is closed."
            ) from None

    async def _read(self) -> None:
        end = StreamEnded()
        try:
            while True:
                message = await self._stream.read()
                if not isinstance(message, bytes):  # grpc.aio.EOF
                    break
                self.received_bytes += len(message)
                await self._inbox.put(message)
        except grpc.aio.AioRpcError as failure:
            end = StreamEnded(failure)
        except grpc.aio.BaseError as failure:
            log.info("stream_read_failed", cause=type(failure).__name__)
        finally:
            await self._inbox.close(end)

    async def _write(self) -> None:
        while True:
            message = await self._outbox.get()
            self._write_idle.clear()
            try:
                await self._stream.write(message)
            except (grpc.aio.AioRpcError, grpc.aio.BaseError, asyncio.InvalidStateError) as failure:
                # The stream is over (trap 4); the reader learns why from the status.
                log.info("stream_write_failed", cause=type(failure).__name__)
                await self._outbox.close(StreamEnded())
                return
            finally:
                self._write_idle.set()

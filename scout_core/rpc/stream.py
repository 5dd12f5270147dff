"""One bidirectional stream as two tasks around bounded queues.

This module knows bytes, not messages. Messages cross it already serialised, so that what is
counted is what crosses the link. The rules come from STYLE's traps: an independent reader, so that
both sides may write (3); one write at a time (4); no timeout on ``read`` itself, only on the
queue behind it (6); a peer that stops reading fills the outbox and is told so, not waited for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Protocol, Self

import grpc
import structlog

from scout_core.errors import PeerTimeoutError, SlowConsumerError
from scout_core.rpc.bounded_queue import BoundedQueue, StreamEnded

DEFAULT_INBOX_BYTES: Final = 2 * 1024 * 1024
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

"""One task writes to a stream; whoever sends is told when nobody reads."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import grpc
import pytest

from scout_core.errors import PeerTimeoutError, SlowConsumerError
from scout_core.rpc.bounded_queue import StreamEnded
from scout_core.rpc.stream import StreamPump, StreamWriter, read_stream


@dataclass
class FakeStream:
    """A stream whose peer reads only while ``reading`` is set."""

    written: list[bytes] = field(default_factory=list[bytes])
    writing: int = 0
    overlapped: bool = False
    broken: bool = False
    reading: asyncio.Event = field(default_factory=asyncio.Event)
    incoming: asyncio.Queue[object] = field(default_factory=asyncio.Queue[object])

    async def write(self, message: bytes) -> None:
        if self.broken:
            raise asyncio.InvalidStateError("RPC already finished.")
        self.writing += 1
        self.overlapped |= self.writing > 1
        await self.reading.wait()
        self.written.append(message)
        self.writing -= 1

    async def read(self) -> object:
        item = await self.incoming.get()
        if isinstance(item, BaseException):
            raise item
        return item


def flowing() -> FakeStream:
    stream = FakeStream()
    stream.reading.set()
    return stream


async def test_messages_leave_one_at_a_time_and_in_order() -> None:
    stream = flowing()
    messages = [bytes([index]) * index for index in range(1, 50)]
    async with StreamWriter(stream, outbox_bytes=64) as writer:
        for message in messages:
            await writer.send(message)
        await writer.flush()
        assert writer.sent_bytes == sum(map(len, messages))
    assert stream.written == messages
    assert not stream.overlapped


async def test_sender_waits_for_room_and_goes_on() -> None:
    stream = FakeStream()
    async with StreamWriter(stream, outbox_bytes=4) as writer:
        await writer.send(b"aaaa")  # taken by the task
        await asyncio.sleep(0)
        await writer.send(b"bbbb")
        third = asyncio.create_task(writer.send(b"cccc"))
        await asyncio.sleep(0)
        assert not third.done()
        stream.reading.set()
        await third
        await writer.flush()
    assert stream.written == [b"aaaa", b"bbbb", b"cccc"]


async def test_peer_that_does_not_read_is_a_slow_consumer_of_send_and_flush() -> None:
    async with StreamWriter(FakeStream(), outbox_bytes=1, write_timeout_s=0.001) as writer:
        await writer.send(b"first")
        await asyncio.sleep(0)
        await writer.send(b"second")
        with pytest.raises(SlowConsumerError, match=r"0\.001 s"):
            await writer.send(b"third")
        with pytest.raises(SlowConsumerError):
            await writer.flush()


async def test_broken_stream_ends_the_writer_and_its_senders() -> None:
    stream = flowing()
    stream.broken = True
    async with StreamWriter(stream, outbox_bytes=1) as writer:
        await writer.send(b"lost")
        await asyncio.sleep(0)
        with pytest.raises(StreamEnded):
            await writer.send(b"refused")
        await writer.flush()
    assert stream.written == []


async def test_leaving_drops_what_was_not_flushed() -> None:
    stream = FakeStream()
    async with StreamWriter(stream) as writer:
        await writer.send(b"never written")
    assert stream.written == []


async def test_read_returns_bytes_until_the_end_of_the_stream() -> None:
    stream = flowing()
    stream.incoming.put_nowait(b"message")
    stream.incoming.put_nowait(grpc.aio.EOF)
    assert await read_stream(stream) == b"message"
    with pytest.raises(StreamEnded) as ended:
        await read_stream(stream)
    assert ended.value.failure is None


async def test_read_of_a_failed_call_says_how_it_failed() -> None:
    stream = flowing()
    metadata = grpc.aio.Metadata()
    failure = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, metadata, metadata)
    stream.incoming.put_nowait(failure)
    with pytest.raises(StreamEnded) as ended:
        await read_stream(stream)
    assert ended.value.failure is failure


async def test_pump_hands_messages_on_and_times_out_on_silence() -> None:
    stream = flowing()
    async with StreamPump(stream, inbox_bytes=10, outbox_bytes=10) as pump:
        stream.incoming.put_nowait(b"hello")
        assert await pump.receive(timeout_s=1) == b"hello"
        with pytest.raises(PeerTimeoutError, match="check the link"):
            await pump.receive(timeout_s=0.001)
        assert await pump.receive_until(0.0) is None


async def test_pump_keeps_what_came_before_the_end() -> None:
    stream = flowing()
    async with StreamPump(stream, inbox_bytes=10, outbox_bytes=10) as pump:
        stream.incoming.put_nowait(b"last")
        stream.incoming.put_nowait(grpc.aio.EOF)
        assert await pump.receive(timeout_s=1) == b"last"
        with pytest.raises(StreamEnded):
            await pump.receive(timeout_s=1)


async def test_pump_stops_reading_while_its_inbox_is_full() -> None:
    stream = flowing()
    for _ in range(5):
        stream.incoming.put_nowait(b"four")
    async with StreamPump(stream, inbox_bytes=8, outbox_bytes=8) as pump:
        for _ in range(10):
            await asyncio.sleep(0)
        # Two fit, one waits in the reader's hand.
        assert stream.incoming.qsize() == 2
        for _ in range(5):
            assert await pump.receive(timeout_s=1) == b"four"

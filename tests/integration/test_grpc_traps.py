"""What grpc.aio does that our design works around: each test fails when a new grpcio changes it.

Measured on grpcio 1.85; numbers in names are those of the list of traps. A failure here is news,
not a bug: see whether the workaround it names is still needed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from time import monotonic

import grpc
import pytest
from grpc import aio

from scout_core.testbed.link import LinkConfig
from scout_core.testbed.proxy import LinkEmulator
from tests.support.byte_streams import (
    METHOD,
    Context,
    byte_channel,
    byte_server,
    echo,
    open_call,
)

KIB = 1024
MIB = 1024 * KIB


async def test_trap_1_the_receiver_rejects_a_large_message_after_it_crossed_the_link() -> None:
    async with (
        byte_server(echo) as (_, port),
        LinkEmulator(LinkConfig.constant(400.0, 400.0), ("127.0.0.1", port)) as link,
        byte_channel(link.address[1]) as channel,
    ):
        call = open_call(channel)
        await call.write(bytes(5 * MIB))
        assert await asyncio.wait_for(call.code(), 5) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert link.statistics().up.delivered_bytes >= 4 * MIB


async def test_trap_2_a_completed_write_is_not_a_delivery() -> None:
    """Workaround: credits bound what is un-acked, and goodput is taken from acks."""
    release = asyncio.Event()
    chunk = bytes(64 * KIB)

    async def never_read(_: AsyncIterator[bytes], __: Context) -> None:
        await release.wait()

    written_bytes, last_s, started = 0, 0.0, 0.0
    async with (
        byte_server(never_read) as (_, port),
        LinkEmulator(LinkConfig.constant(8.0, 100.0), ("127.0.0.1", port)) as link,
        byte_channel(link.address[1]) as channel,
    ):
        await asyncio.wait_for(channel.channel_ready(), 5)
        call = open_call(channel)
        started = monotonic()
        with suppress(TimeoutError):
            while written_bytes < 64 * MIB:
                await asyncio.wait_for(call.write(chunk), 0.7)
                written_bytes += len(chunk)
                last_s = monotonic() - started
        release.set()
    assert 1 * MIB <= written_bytes <= 16 * MIB, "nobody read a byte"
    apparent_mbps = written_bytes * 8 / last_s / 1e6
    assert apparent_mbps > 5 * 8.0, "the link carries 8 Mbit/s"


async def test_trap_3_two_ends_that_only_write_stop_each_other() -> None:
    """Workaround: one reader task a stream, always reading."""
    chunk = bytes(256 * KIB)

    async def write_only(_: AsyncIterator[bytes], context: Context) -> None:
        while True:
            await context.write(chunk)

    async with byte_server(write_only) as (_, port), byte_channel(port) as channel:
        call = open_call(channel)

        async def write_much() -> None:
            for _ in range(64):  # 16 MiB: four times what the buffers take
                await call.write(chunk)

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(write_much(), 1.0)


async def test_trap_4_concurrent_writes_break_the_call() -> None:
    """Workaround: one writer task a stream."""
    release = asyncio.Event()

    async def never_read(_: AsyncIterator[bytes], __: Context) -> None:
        await release.wait()

    async with byte_server(never_read) as (_, port), byte_channel(port) as channel:
        call = open_call(channel)
        # More than the buffers take, so that some write is still under way when the next begins.
        # That one may never return, hence no gathering.
        writes = [asyncio.ensure_future(call.write(bytes(MIB))) for _ in range(16)]
        done, pending = await asyncio.wait(writes, timeout=10, return_when=asyncio.FIRST_EXCEPTION)
        errors = [write.exception() for write in done if not write.cancelled()]
        codes = {error.code() for error in errors if isinstance(error, aio.AioRpcError)}
        assert codes == {grpc.StatusCode.INTERNAL}
        for write in pending:
            write.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        release.set()


async def test_trap_4_a_write_after_the_end_is_an_invalid_state() -> None:
    async def leave(_: AsyncIterator[bytes], __: Context) -> None:
        return

    async with byte_server(leave) as (_, port), byte_channel(port) as channel:
        call = open_call(channel)
        assert await asyncio.wait_for(call.code(), 5) is grpc.StatusCode.OK
        with pytest.raises(asyncio.InvalidStateError):
            await call.write(b"x")


async def test_trap_5_an_error_in_a_request_generator_is_swallowed() -> None:
    """Workaround: read and write by hand, never a request generator."""

    async def requests() -> AsyncIterator[bytes]:
        yield b"x"
        raise ValueError

    async with byte_server(echo) as (_, port), byte_channel(port) as channel:
        call = channel.stream_stream(METHOD)(requests())
        with pytest.raises(asyncio.CancelledError):
            async for _ in call:
                pass


async def test_trap_6_a_timeout_on_read_cancels_the_whole_call() -> None:
    """Workaround: a reader task fills a queue, and the timeout is on the queue."""
    async with byte_server(echo) as (_, port), byte_channel(port) as channel:
        call = open_call(channel)
        await call.write(b"x")
        assert await asyncio.wait_for(call.read(), 5) == b"x"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call.read(), 0.1)
        assert call.cancelled()
        assert await call.code() is grpc.StatusCode.CANCELLED
        with pytest.raises(asyncio.InvalidStateError):
            await call.write(b"y")


@pytest.mark.parametrize("style", ["iterator", "read"])
async def test_trap_7_a_cancelled_call_looks_like_a_complete_one(style: str) -> None:
    """Workaround: only an explicit finish with totals and digest commits anything."""
    ended: asyncio.Queue[tuple[int, bool]] = asyncio.Queue()

    async def count(requests: AsyncIterator[bytes], context: Context) -> None:
        received = 0
        if style == "iterator":
            async for _ in requests:
                received += 1
        else:
            while await context.read() is not aio.EOF:
                received += 1
        ended.put_nowait((received, context.cancelled()))

    async with byte_server(count) as (_, port), byte_channel(port) as channel:
        call = open_call(channel)
        for _ in range(3):
            await call.write(b"x")
        await asyncio.sleep(0.2)
        call.cancel()
        assert await asyncio.wait_for(ended.get(), 5) == (3, False)


async def test_trap_8_a_handler_that_raises_cancelled_leaves_its_client_without_status() -> None:
    """Workaround: one interceptor maps every exception."""

    async def give_up(_: AsyncIterator[bytes], __: Context) -> None:
        raise asyncio.CancelledError

    async with byte_server(give_up) as (_, port), byte_channel(port) as channel:
        call = open_call(channel)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call.code(), 1.0)


async def test_trap_8_other_exceptions_leak_their_text() -> None:
    async def fail(_: AsyncIterator[bytes], __: Context) -> None:
        raise ValueError("a private path")

    async with byte_server(fail) as (_, port), byte_channel(port) as channel:
        call = open_call(channel)
        assert await asyncio.wait_for(call.code(), 5) is grpc.StatusCode.UNKNOWN
        assert "a private path" in str(await call.details())


async def test_trap_9_stop_burns_its_whole_grace_on_an_idle_stream() -> None:
    """Workaround: a drain notice on every stream before the stop."""
    async with byte_server(echo) as (server, port), byte_channel(port) as channel:
        call = open_call(channel)
        await call.write(b"x")
        assert await asyncio.wait_for(call.read(), 5) == b"x"
        started = monotonic()
        await server.stop(1.0)
        assert monotonic() - started >= 0.95
        assert await call.code() is grpc.StatusCode.UNAVAILABLE


async def test_trap_9_stop_is_quick_once_the_streams_have_ended() -> None:
    async with byte_server(echo) as (server, port), byte_channel(port) as channel:
        call = open_call(channel)
        await call.write(b"x")
        assert await asyncio.wait_for(call.read(), 5) == b"x"
        await call.done_writing()
        assert await asyncio.wait_for(call.code(), 5) is grpc.StatusCode.OK
        started = monotonic()
        await server.stop(5.0)
        assert monotonic() - started < 2.0


async def test_trap_10_keepalive_notices_a_dead_link_only_with_a_ping_timeout() -> None:
    """Workaround: ``grpc.http2.ping_timeout_ms`` beside keepalive; heartbeats besides."""
    keepalive = (
        ("grpc.keepalive_time_ms", 1000),
        ("grpc.keepalive_timeout_ms", 1000),
        ("grpc.http2.max_pings_without_data", 0),
    )
    permissive = (
        ("grpc.http2.min_ping_interval_without_data_ms", 100),
        ("grpc.http2.max_ping_strikes", 0),
    )
    async with (
        byte_server(echo, permissive) as (_, port),
        LinkEmulator(LinkConfig.constant(100.0, 100.0), ("127.0.0.1", port)) as link,
        byte_channel(link.address[1], keepalive) as plain,
        byte_channel(link.address[1], (*keepalive, ("grpc.http2.ping_timeout_ms", 1000))) as timed,
    ):
        unaware, aware = open_call(plain), open_call(timed)
        for call in (unaware, aware):
            await call.write(b"x")
            assert await asyncio.wait_for(call.read(), 5) == b"x"
        link.outage(60.0)
        assert await asyncio.wait_for(aware.code(), 5) is grpc.StatusCode.UNAVAILABLE
        # By its own settings keepalive should have spoken after 1 + 1 s.
        await asyncio.sleep(2.0)
        assert not unaware.done()
        unaware.cancel()

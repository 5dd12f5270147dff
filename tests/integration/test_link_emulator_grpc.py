"""gRPC over the emulated link: streams flow at the link's rate, end in order, and see resets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from time import monotonic

import grpc

from scout_core.testbed.link import LinkConfig
from scout_core.testbed.proxy import LinkEmulator
from tests.support.byte_streams import Context, byte_channel, byte_server, echo, open_call

CHUNK = bytes(range(256)) * 128


async def test_echo_stream_crosses_the_link_whole_and_ends_in_order() -> None:
    async with (
        byte_server(echo) as (_, port),
        LinkEmulator(LinkConfig.constant(100.0, 100.0, 0.02), ("127.0.0.1", port)) as link,
        byte_channel(link.address[1]) as channel,
    ):
        call = open_call(channel)

        async def write() -> None:
            for _ in range(40):
                await call.write(CHUNK)
            await call.done_writing()

        async with asyncio.TaskGroup() as group:
            group.create_task(write())
            received = [await asyncio.wait_for(call.read(), 10) for _ in range(40)]
        assert all(item == CHUNK for item in received)
        assert await asyncio.wait_for(call.code(), 5) is grpc.StatusCode.OK


async def test_upload_stream_runs_at_the_rate_of_the_link() -> None:
    arrived: asyncio.Queue[float] = asyncio.Queue()

    async def time_arrivals(requests: AsyncIterator[bytes], context: Context) -> None:
        async for _ in requests:
            arrived.put_nowait(monotonic())

    count = 50
    async with (
        byte_server(time_arrivals) as (_, port),
        LinkEmulator(LinkConfig.constant(16.0, 16.0, 0.02), ("127.0.0.1", port)) as link,
        byte_channel(link.address[1]) as channel,
    ):
        call = open_call(channel)
        for _ in range(count):
            await call.write(CHUNK)
        await call.done_writing()
        times = [await asyncio.wait_for(arrived.get(), 10) for _ in range(count)]
        assert await asyncio.wait_for(call.code(), 5) is grpc.StatusCode.OK
    mbps = (count - 10) * len(CHUNK) * 8 / (times[-1] - times[9]) / 1e6
    # HTTP/2 and gRPC framing take a little of the 16 Mbit/s.
    assert 14.5 < mbps < 16.5


async def test_reset_fails_the_call_and_a_new_one_connects_again() -> None:
    reconnect = (
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
    )
    async with (
        byte_server(echo) as (_, port),
        LinkEmulator(LinkConfig.constant(100.0, 100.0, 0.01), ("127.0.0.1", port)) as link,
        byte_channel(link.address[1], reconnect) as channel,
    ):
        call = open_call(channel)
        await call.write(b"x")
        assert await asyncio.wait_for(call.read(), 5) == b"x"
        assert link.reset_connections() == 1
        assert await asyncio.wait_for(call.code(), 5) is grpc.StatusCode.UNAVAILABLE
        again = channel.stream_stream("/scout.test.Bytes/Stream")(wait_for_ready=True)
        await again.write(b"y")
        assert await asyncio.wait_for(again.read(), 5) == b"y"
        again.cancel()


async def test_stream_survives_an_outage() -> None:
    async with (
        byte_server(echo) as (_, port),
        LinkEmulator(LinkConfig.constant(100.0, 100.0), ("127.0.0.1", port)) as link,
        byte_channel(link.address[1]) as channel,
    ):
        call = open_call(channel)
        await call.write(b"x")
        assert await asyncio.wait_for(call.read(), 5) == b"x"
        link.outage(0.5)
        started = monotonic()
        await call.write(b"y")
        assert await asyncio.wait_for(call.read(), 5) == b"y"
        assert monotonic() - started >= 0.49
        call.cancel()

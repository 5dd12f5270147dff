"""A client that ignores credit puts no more on the link than the stream's window."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest

from scout_core.rpc.channel import RpcServer, open_channel
from scout_core.rpc.options import LEAST_MESSAGE_BYTES, MIB, ChannelRole
from scout_core.testbed.link import LinkConfig
from scout_core.testbed.proxy import LinkEmulator

METHOD = "/scout.test.Flood/Session"
MESSAGE = bytes(16_000)
MESSAGES = 200
WINDOW_BYTES = 128 * 1024
SETTLED_S = 2.0


Behaviour = Callable[[AsyncIterator[bytes], Any], Awaitable[None]]


async def unread(_: AsyncIterator[bytes], __: Any) -> None:
    """Opens, and reads nothing."""
    await asyncio.sleep(60)


async def reading(messages: AsyncIterator[bytes], _: Any) -> None:
    """Opens, and reads whatever comes."""
    async for _message in messages:
        pass


async def ending(messages: AsyncIterator[bytes], _: Any) -> None:
    """Reads an open, and ends at what comes next."""
    count = 0
    async for _message in messages:
        count += 1
        if count == 2:
            return


async def crossed_bytes(
    server: RpcServer, behaviour: Behaviour = unread, message: bytes = MESSAGE
) -> int:
    """What a flood of up to 200 messages puts on a 100 Mbit/s link in front of a server."""
    handler = grpc.stream_stream_rpc_method_handler(behaviour)
    server.grpc_server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("scout.test.Flood", {"Session": handler}),)
    )
    port = server.listen("127.0.0.1:0")
    await server.start()
    try:
        config = LinkConfig.constant(100.0, 100.0, 0.02)
        async with LinkEmulator(config, ("127.0.0.1", port)) as link:
            host, linked = link.address
            async with open_channel(f"{host}:{linked}", ChannelRole.DATA) as channel:
                call = channel.stream_stream(METHOD)(timeout=30)
                flooding = asyncio.create_task(_flood(call, message))
                await asyncio.sleep(SETTLED_S)
                flooding.cancel()
                await asyncio.gather(flooding, return_exceptions=True)
                crossed = link.statistics().up.delivered_bytes
                call.cancel()
        return crossed
    finally:
        await server.stop(0)


async def _flood(call: Any, message: bytes) -> None:
    for _ in range(MESSAGES):
        await call.write(message)


@pytest.mark.timeout(30)
async def test_an_unread_stream_holds_no_more_than_its_window() -> None:
    bounded = await crossed_bytes(RpcServer(window_bytes=WINDOW_BYTES))
    assert WINDOW_BYTES / 2 < bounded < 2 * WINDOW_BYTES


@pytest.mark.timeout(30)
async def test_of_a_message_that_is_too_large_no_more_than_a_window_crosses() -> None:
    """However much is read: it is refused by its length, not once it is there."""
    server = RpcServer(window_bytes=WINDOW_BYTES, message_bytes=20 * 1024)
    assert await crossed_bytes(server, reading, bytes(MIB)) < 2 * WINDOW_BYTES


@pytest.mark.timeout(30)
async def test_where_small_messages_are_taken_a_flood_is_small_until_it_is_ended() -> None:
    """grpc reads a message ahead; of 20 KiB each some 45 kB would cross."""
    server = RpcServer(window_bytes=6_000, message_bytes=LEAST_MESSAGE_BYTES)
    assert await crossed_bytes(server, ending, bytes(LEAST_MESSAGE_BYTES - 1_024)) < 20_000

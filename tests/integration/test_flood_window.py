"""A client that ignores credit puts no more on the link than the stream's window."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from scout_core.rpc.channel import RpcServer, open_channel
from scout_core.rpc.options import ChannelRole
from scout_core.testbed.link import LinkConfig
from scout_core.testbed.proxy import LinkEmulator

METHOD = "/scout.test.Flood/Session"
MESSAGE = bytes(16_000)
MESSAGES = 200
WINDOW_BYTES = 128 * 1024
SETTLED_S = 2.0


async def unread(_: AsyncIterator[bytes], __: Any) -> None:
    """Opens, and reads nothing."""
    await asyncio.sleep(60)


async def crossed_bytes(window_bytes: int | None) -> int:
    """What a flood of 3.2 MB puts on a 100 Mbit/s link in front of a server that reads nothing."""
    server = RpcServer(window_bytes=window_bytes)
    handler = grpc.stream_stream_rpc_method_handler(unread)
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
                flooding = asyncio.create_task(_flood(call))
                await asyncio.sleep(SETTLED_S)
                flooding.cancel()
                crossed = link.statistics().up.delivered_bytes
                call.cancel()
        return crossed
    finally:
        await server.stop(0)


async def _flood(call: Any) -> None:
    for _ in range(MESSAGES):
        await call.write(MESSAGE)


@pytest.mark.timeout(30)
async def test_an_unread_stream_holds_no_more_than_its_window() -> None:
    bounded = await crossed_bytes(WINDOW_BYTES)
    assert WINDOW_BYTES / 2 < bounded < 2 * WINDOW_BYTES

"""A real grpc.aio server and client of one bidirectional stream of raw bytes: no generated code."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
from grpc import aio

METHOD = "/scout.test.Bytes/Stream"

ByteCall = aio.StreamStreamCall[bytes, bytes]
Context = aio.ServicerContext[bytes, bytes]
Reader = Callable[[AsyncIterator[bytes], Context], Awaitable[None]]
"""A handler that reads and writes by hand."""
Generator = Callable[[AsyncIterator[bytes], Context], AsyncIterator[bytes]]
"""A handler that yields its answers."""
Options = Sequence[tuple[str, int | str]]


class ByteService(grpc.GenericRpcHandler):
    """Routes every method to one handler."""

    def __init__(self, handler: Reader | Generator) -> None:
        self._handler: Any = handler

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[bytes, bytes]:
        return grpc.stream_stream_rpc_method_handler(self._handler)


async def echo(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request


@asynccontextmanager
async def byte_server(
    handler: Reader | Generator, options: Options = ()
) -> AsyncGenerator[tuple[aio.Server, int]]:
    """A started server and its port; stopped without grace at the end."""
    server = aio.server(options=options)
    server.add_generic_rpc_handlers((ByteService(handler),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield server, port
    finally:
        await server.stop(0)


@asynccontextmanager
async def byte_channel(port: int, options: Options = ()) -> AsyncGenerator[aio.Channel]:
    """A channel with a connection of its own."""
    own = ("grpc.use_local_subchannel_pool", 1)
    async with aio.insecure_channel(f"127.0.0.1:{port}", options=[own, *options]) as channel:
        yield channel


def open_call(channel: aio.Channel) -> ByteCall:
    """A stream to be used by ``read`` and ``write``."""
    return channel.stream_stream(METHOD)()

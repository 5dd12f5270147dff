"""The receiving process of the transport study: a session, two kinds of gRPC stream, TCP.

The session sink is the cloud's end as the server runs it (machine, credit, acks, checksums,
digest), with a consumer that drops each block where the server has a model: blocks come in the
pieces that the stream had, and joining them is the decoder's part. The bare stream is the generated
servicer, which parses each message and looks at its data; the premade stream reads messages from
the same kind of server and counts their bytes. The TCP sink reads into one buffer. Each confirms
the bytes it has, so that a sender times delivery and not its own writing.

Run as ``python -m scout_core.evaluation.transport_sink``: prints one JSON line with the ports and
ends with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import threading
from dataclasses import asdict, dataclass
from typing import Final

import uvloop
from scout.v1 import transport_pb2, transport_pb2_grpc

from scout_core.daemon.heap import keep_freed_memory
from scout_core.protocol import actions, events
from scout_core.protocol.answer import AnswerSummary, FinishReason
from scout_core.protocol.blocks import Block
from scout_core.protocol.cloud_session import CloudSession
from scout_core.protocol.opening import ContextState
from scout_core.rpc.channel import RpcServer
from scout_core.rpc.handlers import Context, transport_handler
from scout_core.rpc.session_server import Outlet, ServedSession, serve_session_stream

LOOPBACK: Final = "127.0.0.1"
COUNT_BYTES: Final = 8
"""A confirmation: bytes received, big-endian."""
TCP_BUFFER_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class SinkPorts:
    """Where the receivers listen, on the loopback address."""

    session: int
    premade: int
    bare: int
    tcp: int


class DroppingConsumer:
    """Forgets each block at once; a committed payload is answered with no tokens."""

    def __init__(self) -> None:
        self.session: ServedSession | None = None

    async def take_block(self, block: Block) -> None:
        """Done with it."""

    def note_suspended(self) -> None:
        """Nobody shares the link."""

    def note_switch(self, switch: actions.ApplySwitch) -> None:
        """Blocks are dropped, whatever their coding."""

    def commit(self) -> None:
        if self.session is not None:
            summary = AnswerSummary(
                FinishReason.END_OF_TEXT, 0, uplink_bytes=self.session.uplink_bytes
            )
            self.session.post(events.AnswerFinished(summary))


class SessionSink:
    """TransportService with neither models nor resumption across streams."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    async def session(self, _: object, context: Context) -> None:
        await serve_session_stream(context, self._open)

    def _open(self, event: events.OpenReceived, outlet: Outlet) -> ServedSession:
        consumer = DroppingConsumer()
        session = consumer.session = ServedSession(CloudSession(), event.parameters, consumer)
        session.attach(outlet, event)
        session.post(events.AcceptDecided(ContextState.ABSENT))
        task = asyncio.create_task(session.run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return session


class PremadeSink:
    """The same method of the same kind of server, and nothing but reading."""

    async def session(self, _: object, context: Context) -> None:
        received = 0
        while isinstance(message := await context.read(), bytes):
            received += len(message)
        await context.write(received.to_bytes(COUNT_BYTES, "big"))


class BareSink(transport_pb2_grpc.TransportServiceServicer):
    """The peer: the generated servicer, whole messages, parsed."""

    async def session(self, request_iterator: object, context: Context) -> None:
        del request_iterator  # read from the context, as the other sinks do
        received = 0
        while isinstance(request := await context.read(), transport_pb2.SessionRequest):
            received += len(request.chunk.data)
        ack = transport_pb2.Ack(received_bytes=received)
        await context.write(transport_pb2.SessionResponse(ack=ack))

    Session = session  # as the contract names it


def serve_tcp(listener: socket.socket) -> None:
    """One connection after the other, until the process ends."""
    buffer = bytearray(TCP_BUFFER_BYTES)
    while True:
        connection, _ = listener.accept()
        with connection:
            received = 0
            while count := connection.recv_into(buffer):
                received += count
            connection.sendall(received.to_bytes(COUNT_BYTES, "big"))


async def _serve() -> None:
    servers = [RpcServer() for _ in range(3)]
    for server, servicer in zip(servers, (SessionSink(), PremadeSink()), strict=False):
        server.grpc_server.add_generic_rpc_handlers((transport_handler(servicer),))
    transport_pb2_grpc.add_TransportServiceServicer_to_server(BareSink(), servers[2].grpc_server)
    ports: list[int] = []
    for server in servers:
        ports.append(server.listen(f"{LOOPBACK}:0"))
        await server.start()
    listener = socket.create_server((LOOPBACK, 0))
    threading.Thread(target=serve_tcp, args=(listener,), daemon=True).start()
    session, premade, bare = ports
    announced = SinkPorts(session, premade, bare, listener.getsockname()[1])
    sys.stdout.write(json.dumps(asdict(announced)) + "\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.buffer.read)
    for server in servers:
        await server.stop(0)


if __name__ == "__main__":
    keep_freed_memory()  # as in a daemon
    uvloop.run(_serve())

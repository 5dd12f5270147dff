"""The receiving process of the transport study: a session sink, a bare stream, a TCP sink.

The session sink is the cloud's end as the server runs it (machine, credit, acks, checksums,
digest), with a consumer that drops each block where the server has a model. The bare stream reads
messages from the same kind of server and counts them; the TCP sink reads into one buffer. Each
confirms the bytes it has, so that a sender times delivery and not its own writing.

Run as ``python -m scout_core.evaluation.transport_sink``: prints one JSON line with three ports and
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
    """Where the three receivers listen, on the loopback address."""

    session: int
    bare: int
    tcp: int


class DroppingConsumer:
    """Forgets each block at once; a committed payload is answered with no tokens."""

    def __init__(self) -> None:
        self.session: ServedSession | None = None

    async def take_block(self, block: Block) -> None:
        """Done with it."""

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


class BareSink:
    """The peer: the same method of the same kind of server, and nothing but reading."""

    async def session(self, _: object, context: Context) -> None:
        received = 0
        while isinstance(message := await context.read(), bytes):
            received += len(message)
        await context.write(received.to_bytes(COUNT_BYTES, "big"))


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
    ports: list[int] = []
    servers: list[RpcServer] = []
    for servicer in (SessionSink(), BareSink()):
        server = RpcServer()
        server.grpc_server.add_generic_rpc_handlers((transport_handler(servicer),))
        ports.append(server.listen(f"{LOOPBACK}:0"))
        await server.start()
        servers.append(server)
    listener = socket.create_server((LOOPBACK, 0))
    threading.Thread(target=serve_tcp, args=(listener,), daemon=True).start()
    announced = SinkPorts(ports[0], ports[1], listener.getsockname()[1])
    sys.stdout.write(json.dumps(asdict(announced)) + "\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.buffer.read)
    for server in servers:
        await server.stop(0)


if __name__ == "__main__":
    uvloop.run(_serve())

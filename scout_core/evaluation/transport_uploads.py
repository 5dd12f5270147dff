"""One upload each: by a session, by two kinds of gRPC stream, by TCP. Returns what it took.

The session is the edge agent's own client; only its source of blocks differs. The streams carry the
chunk messages of the same payload, cut as the session cuts them, over a channel of the same kind:
the *bare* one is what an application would write, the generated client, which makes and serialises
each message; the *premade* one sends bytes that were serialised before the clock started and that
nobody parses, the least that any gRPC stream costs. Neither hashes, acks or grants credit. This
module knows nothing about repetitions or links.
"""

from __future__ import annotations

import asyncio
import socket
import time
import uuid
from dataclasses import dataclass
from typing import Final

from scout.v1 import transport_pb2, transport_pb2_grpc

from scout_core.control.estimator import GoodputEstimator
from scout_core.errors import PeerUnavailableError
from scout_core.evaluation.transport_payload import Payload
from scout_core.evaluation.transport_sink import COUNT_BYTES
from scout_core.modes import AgentId, ContextHash, Mode, ModelFingerprint, SessionId
from scout_core.protocol.edge_session import EdgeTimeouts
from scout_core.protocol.opening import OpenParameters
from scout_core.protocol.payload_sender import DEFAULT_CHUNK_BYTES, SendPolicy
from scout_core.rpc.channel import open_channel
from scout_core.rpc.handlers import SESSION_METHOD
from scout_core.rpc.options import ChannelRole
from scout_core.rpc.session_client import SessionClient, SessionOptions
from scout_core.rpc.tenancy import DEFAULT_TENANT

CHUNK_BYTES: Final = DEFAULT_CHUNK_BYTES
"""The longest chunk of the session, and of its peers."""
LOOKAHEAD_BYTES: Final = 0
"""The edge agent's default."""
CONNECT_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class SessionUpload:
    """What one session took. ``elapsed_s``: from opening the stream to the end of the answer."""

    payload_bytes: int
    elapsed_s: float
    transfer_s: float
    """From the first chunk handed over to the last ack."""
    uplink_bytes: int
    peak_backlog_bytes: int
    """Most bytes sent and not acked, once the warm-up was over."""


@dataclass(frozen=True, slots=True)
class SessionPath:
    """Where a session goes and what its edge knows of the path."""

    address: str
    round_trip_s: float
    warm_up_s: float = 0.0


async def upload_by_session(path: SessionPath, payload: Payload) -> SessionUpload:
    """One whole session over a connection that stands before the clock starts.

    Raises:
        ScoutError: whatever ended it early.
    """
    channel = open_channel(path.address, ChannelRole.DATA)
    try:
        await asyncio.wait_for(channel.channel_ready(), CONNECT_TIMEOUT_S)
        client = SessionClient(channel, _options(), _ignore, GoodputEstimator())
        measured = client.measurements

        def forget_peak() -> None:
            measured.peak_unacked_bytes = 0

        timer = asyncio.get_running_loop().call_later(path.warm_up_s, forget_peak)
        started_s = time.monotonic()
        await client.run(_parameters(payload, path.round_trip_s), payload.stream())
        elapsed_s = time.monotonic() - started_s
        timer.cancel()
    finally:
        await channel.close()
    return SessionUpload(
        payload.total_bytes,
        elapsed_s,
        measured.transfer_s,
        measured.uplink_bytes,
        measured.peak_unacked_bytes,
    )


async def upload_by_premade_stream(port: int, payload: Payload, chunk_bytes: int) -> float:
    """Seconds for the same chunks, serialised before, until the receiver confirms their bytes."""
    channel = open_channel(f"127.0.0.1:{port}", ChannelRole.DATA)
    messages = (piece.message for piece in payload.chunks(chunk_bytes))
    try:
        await asyncio.wait_for(channel.channel_ready(), CONNECT_TIMEOUT_S)
        call = channel.stream_stream(
            SESSION_METHOD, request_serializer=None, response_deserializer=None
        )()
        started_s = time.monotonic()
        for message in messages:
            await call.write(message)
        await call.done_writing()
        confirmed = await call.read()
        elapsed_s = time.monotonic() - started_s
    finally:
        await channel.close()
    _expect_all(confirmed, sum(len(piece.message) for piece in payload.chunks(chunk_bytes)))
    return elapsed_s


async def upload_by_bare_stream(port: int, payload: Payload, chunk_bytes: int) -> float:
    """Seconds for the same chunks by the generated client, until their data is confirmed."""
    channel = open_channel(f"127.0.0.1:{port}", ChannelRole.DATA)
    pieces = payload.chunks(chunk_bytes)
    try:
        await asyncio.wait_for(channel.channel_ready(), CONNECT_TIMEOUT_S)
        call = transport_pb2_grpc.TransportServiceStub(channel).Session()
        offset = 0
        started_s = time.monotonic()
        for piece in pieces:
            chunk = transport_pb2.Chunk(offset=offset, data=piece.data, checksum=piece.checksum)
            await call.write(transport_pb2.SessionRequest(chunk=chunk))
            offset += len(piece.data)
        await call.done_writing()
        confirmed = await call.read()
        elapsed_s = time.monotonic() - started_s
    finally:
        await channel.close()
    if not isinstance(confirmed, transport_pb2.SessionResponse):
        raise PeerUnavailableError("The receiver confirmed nothing; run it again.")
    _expect(confirmed.ack.received_bytes, payload.total_bytes)
    return elapsed_s


def upload_by_tcp(port: int, payload: Payload, chunk_bytes: int) -> float:
    """Seconds for the same bytes through one blocking socket, confirmed by the receiver."""
    chunks = [piece.data for piece in payload.chunks(chunk_bytes)]
    with socket.create_connection(("127.0.0.1", port)) as connection:
        started_s = time.monotonic()
        for chunk in chunks:
            connection.sendall(chunk)
        connection.shutdown(socket.SHUT_WR)
        confirmed = connection.recv(COUNT_BYTES)
        elapsed_s = time.monotonic() - started_s
    _expect_all(confirmed, payload.total_bytes)
    return elapsed_s


def _expect_all(confirmed: object, total_bytes: int) -> None:
    _expect(int.from_bytes(confirmed, "big") if isinstance(confirmed, bytes) else 0, total_bytes)


def _expect(received_bytes: int, total_bytes: int) -> None:
    if received_bytes != total_bytes:
        raise PeerUnavailableError(
            f"The receiver confirmed {received_bytes} of {total_bytes} bytes; run it again."
        )


def _options() -> SessionOptions:
    return SessionOptions(
        tenant=DEFAULT_TENANT,
        send_policy=SendPolicy(chunk_bytes=CHUNK_BYTES),
        timeouts=EdgeTimeouts(resume_window_s=0.0),
        lookahead_bytes=LOOKAHEAD_BYTES,
    )


def _parameters(payload: Payload, round_trip_s: float) -> OpenParameters:
    return OpenParameters(
        session_id=SessionId(uuid.uuid4().hex),
        agent_id=AgentId("bench"),
        model_fingerprint=ModelFingerprint("none"),
        context_hash=ContextHash(bytes(32)),
        context_tokens=1,
        question="none",
        mode=Mode.KV_BF16,
        retention=1.0,
        deadline_s=0.0,
        expected_payload_bytes=payload.total_bytes,
        round_trip_s=round_trip_s,
    )


def _ignore(_: object) -> None:
    """Outcomes say nothing the measurements do not."""

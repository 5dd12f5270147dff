"""A Session stream driven by hand: what a broken or hostile edge could send to a cloud server."""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc

from cloud_server.host import ModelHost
from scout_core.errors import ScoutError
from scout_core.modes import AgentId, ContextHash, Mode, SessionId
from scout_core.protocol import actions, events
from scout_core.protocol.checksum import PayloadDigest, chunk_checksum
from scout_core.protocol.opening import OpenParameters
from scout_core.rpc.channel import open_channel
from scout_core.rpc.handlers import SESSION_METHOD
from scout_core.rpc.options import ChannelRole
from scout_core.rpc.session_wire import EdgeSend, decode_cloud, encode_edge
from scout_core.rpc.status import error_from_call
from scout_core.sampling import SamplingOptions

WAIT_S = 10


class RawSession:
    """One stream; whatever is sent goes out as it is."""

    def __init__(self, call: grpc.aio.StreamStreamCall[Any, Any]) -> None:
        self.call = call
        self._received: deque[events.EdgePeerEvent] = deque()
        self._offset = 0
        self._digest = PayloadDigest()

    async def send(self, action: EdgeSend) -> None:
        await self.call.write(encode_edge(action))

    async def send_bytes(self, message: bytes) -> None:
        """Anything at all."""
        await self.call.write(message)

    async def payload(self, data: bytes) -> None:
        """A proper chunk at the end of the payload so far."""
        checksum = chunk_checksum(data)
        await self.send(actions.SendChunk(self._offset, data, checksum))
        self._offset += len(data)
        self._digest.add(self._offset, checksum)

    async def finish(self) -> None:
        """The finish that belongs to the payload."""
        await self.send(actions.SendFinish(self._offset, self._digest.digest()))

    async def receive(self) -> events.EdgePeerEvent | None:
        """The next message; None at the end of the stream."""
        if not self._received:
            message = await asyncio.wait_for(self.call.read(), WAIT_S)
            if not isinstance(message, bytes):
                return None
            self._received.extend(decode_cloud(message))
        return self._received.popleft()

    async def accepted(self) -> events.Accepted:
        """The first message of a session that was admitted."""
        first = await self.receive()
        assert isinstance(first, events.Accepted)
        return first

    async def answer(self) -> tuple[tuple[int, ...], events.AnswerDone]:
        """Token ids and the end of the answer; acks and credit are passed over."""
        tokens: list[int] = []
        while True:
            match await self.receive():
                case events.TokenReceived(token):
                    tokens.append(token.token_id)
                case events.AnswerDone() as done:
                    return tuple(tokens), done
                case None:
                    raise AssertionError("the stream ended before the answer was complete")
                case _:
                    pass

    async def failure(self) -> tuple[grpc.StatusCode, ScoutError]:
        """How the stream failed: the status, and the error that it stands for."""
        try:
            while await self.receive() is not None:
                pass
        except grpc.aio.AioRpcError as failure:
            return failure.code(), error_from_call(failure)
        raise AssertionError(f"the stream ended with {await self.call.code()}, not a failure")


@asynccontextmanager
async def raw_session(address: str, tenant: str = "default") -> AsyncGenerator[RawSession]:
    """A stream on a channel of its own; reset at the end."""
    channel = open_channel(address, ChannelRole.DATA)
    try:
        call = channel.stream_stream(
            SESSION_METHOD, request_serializer=None, response_deserializer=None
        )(metadata=(("scout-tenant", tenant),))
        yield RawSession(call)
        call.cancel()
    finally:
        await channel.close()


def opening(host: ModelHost, tokens: tuple[int, ...], **changes: Any) -> OpenParameters:
    """A request that the cloud would accept, but for the changes."""
    parameters = OpenParameters(
        session_id=SessionId(uuid.uuid4().hex),
        agent_id=AgentId("raw-agent"),
        model_fingerprint=host.engine.fingerprint,
        context_hash=ContextHash(host.hash_of(tokens)),
        context_tokens=len(tokens),
        question="who built the lighthouse?",
        mode=Mode.SCOUT,
        retention=1.0,
        deadline_s=5.0,
        sampling=SamplingOptions(max_tokens=4),
    )
    return replace(parameters, **changes)

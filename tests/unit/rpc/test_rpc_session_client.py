"""The edge's session on a stream that a test plays by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import grpc

from scout_core.control.estimator import GoodputEstimator
from scout_core.modes import AgentId, ContextHash, Mode, ModelFingerprint, SessionId, TenantId
from scout_core.protocol import actions
from scout_core.protocol.edge_session import EdgeTimeouts
from scout_core.protocol.opening import ContextState, OpenParameters
from scout_core.protocol.payload_sender import SendPolicy
from scout_core.rpc.session_client import PayloadItem, SessionClient, SessionOptions
from scout_core.rpc.session_wire import encode_cloud
from scout_core.sampling import SamplingOptions

TURNS = 20
"""Of the loop, until every task has done what it can."""


class PlayedCall:
    """One stream; also stands for the channel that opens it."""

    def __init__(self) -> None:
        self.down: asyncio.Queue[bytes] = asyncio.Queue()
        self.up: list[bytes] = []

    def stream_stream(self, *_: object, **__: object) -> Any:
        def opened(**_: object) -> PlayedCall:
            return self

        return opened

    async def read(self) -> bytes:
        return await self.down.get()

    async def write(self, message: bytes) -> None:
        self.up.append(message)

    def cancel(self) -> None:
        return


def parameters() -> OpenParameters:
    return OpenParameters(
        session_id=SessionId("s"),
        agent_id=AgentId("a"),
        model_fingerprint=ModelFingerprint("f"),
        context_hash=ContextHash(bytes(32)),
        context_tokens=10,
        question="?",
        mode=Mode.KV_INT4,
        retention=1.0,
        deadline_s=1.0,
        sampling=SamplingOptions(max_tokens=1),
    )


async def settle() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)


async def test_a_block_that_waits_for_its_turn_is_made_when_there_is_credit() -> None:
    call, made = PlayedCall(), list[int]()
    client = SessionClient(
        cast(grpc.aio.Channel, call),
        SessionOptions(TenantId("t"), SendPolicy(), EdgeTimeouts(), lookahead_bytes=0),
        lambda _: None,
        GoodputEstimator(),
    )

    async def blocks() -> AsyncIterator[PayloadItem]:
        for number in range(3):
            await client.credited()
            made.append(number)
            yield bytes(100)

    running = asyncio.create_task(client.run(parameters(), blocks()))
    call.down.put_nowait(encode_cloud(actions.SendAccepted(ContextState.ABSENT, 0, 0, 0.0, None)))
    await settle()
    assert made == []
    call.down.put_nowait(encode_cloud(actions.SendCredit(40)))
    await settle()
    assert made == [0]
    call.down.put_nowait(encode_cloud(actions.SendCredit(100)))
    await settle()
    assert made == [0]
    call.down.put_nowait(encode_cloud(actions.SendCredit(250)))
    await settle()
    assert made == [0, 1, 2]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

"""The cloud restarts in the middle of a request: a new process on the same port, which knows
nothing of the session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from cloud_server.app import CloudServer
from scout_core.errors import PeerUnavailableError
from scout_core.modes import Mode
from scout_core.rpc.client import Ask, InferenceClient
from scout_core.rpc.messages import mode_from_wire
from tests.support.testbed import (
    CONTEXT,
    QUESTION,
    Answered,
    answer,
    cloud_settings,
    eventually,
    running_edge,
)
from tests.support.tiny_models import save_tiny_model

SLOW_BYTES_PER_S = 40_000.0
"""130 kB of bf16 KV take three seconds."""
AUTO = Ask(QUESTION, CONTEXT, deadline_s=20, max_tokens=8)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("restart") / "llama")


@dataclass(slots=True)
class RestartingCloud:
    """A cloud server that can be replaced by a fresh one on the same port."""

    model: Path
    server: CloudServer

    async def restart(self, **settings: Any) -> None:
        listen = f"127.0.0.1:{self.server.port}"
        await self.server.close()
        self.server = CloudServer(cloud_settings(self.model, listen=listen, **settings))
        await self.server.start()

    @property
    def reserved_bytes(self) -> int:
        assert self.server.host is not None
        return self.server.host.reserved_payload_bytes

    @property
    def sessions(self) -> int:
        assert self.server.host is not None
        return self.server.host.sessions_in_progress


@asynccontextmanager
async def restarting_pair(
    model: Path, policy: str = "fixed:kv_bf16", **cloud: Any
) -> AsyncGenerator[tuple[RestartingCloud, InferenceClient]]:
    server = CloudServer(cloud_settings(model, **cloud))
    await server.start()
    running = RestartingCloud(model, server)
    try:
        async with (
            running_edge(model, f"127.0.0.1:{server.port}", policy=policy) as edge,
            InferenceClient(f"127.0.0.1:{edge.port}") as client,
        ):
            yield running, client
    finally:
        await running.server.close()


async def restart_during(cloud: RestartingCloud, asking: asyncio.Task[Answered]) -> None:
    """Restarts the cloud in the middle of a request's transfer."""
    await eventually(lambda: cloud.sessions == 1)
    await asyncio.sleep(0.5)  # acks arrive: the session is more than its opening
    assert not asking.done()
    await cloud.restart()


async def test_a_request_that_lost_its_session_is_answered_from_the_tokens_and_says_so(
    model: Path,
) -> None:
    async with restarting_pair(model, uplink_bytes_per_s=SLOW_BYTES_PER_S) as (cloud, client):
        undisturbed = await answer(client, replace(AUTO, mode=Mode.SCOUT, retention=1.0))
        asking = asyncio.create_task(answer(client, AUTO))
        await restart_during(cloud, asking)
        got = await asyncio.wait_for(asking, 20)
        assert mode_from_wire(got.started.mode) is Mode.KV_BF16
        assert mode_from_wire(got.finished.mode) is Mode.SCOUT
        assert "the cloud restarted" in got.finished.degradation
        # The bytes of the lost session are counted: more than tokens and question weigh.
        assert got.finished.bytes.payload_bytes > 10_000
        assert got.finished.bytes.uplink_bytes > got.finished.bytes.payload_bytes
        assert got.tokens == undisturbed.tokens
        await eventually(lambda: cloud.reserved_bytes == 0)


async def test_an_answer_that_has_begun_fails_honestly(model: Path) -> None:
    async with restarting_pair(model) as (cloud, client):
        tokens: list[int] = []
        ask = Ask(QUESTION, CONTEXT, deadline_s=20, max_tokens=400)

        async def read() -> None:
            async for response in client.generate(ask):
                match response.WhichOneof("event"):
                    case "token":
                        tokens.append(response.token.index)
                    case _:
                        pass

        reading = asyncio.create_task(read())
        await eventually(lambda: len(tokens) >= 3)
        assert not reading.done()
        await cloud.restart()
        with pytest.raises(PeerUnavailableError, match="start a new one") as caught:
            await asyncio.wait_for(reading, 20)
        assert int(caught.value.details["delivered_tokens"]) == len(tokens)
        assert tokens == list(range(len(tokens)))


async def test_a_context_lost_with_the_cloud_is_sent_again(model: Path) -> None:
    """Nothing of the payload was acked, since there was none: the cloud held the context."""
    async with restarting_pair(model, policy="tokens") as (cloud, client):
        first = await answer(client, AUTO)
        await cloud.restart()
        # The edge still believes that the cloud holds the context, and may not know it restarted.
        await asyncio.sleep(1.5)
        second = await answer(client, AUTO)
        assert second.tokens == first.tokens
        assert second.finished.bytes.payload_bytes > 0


async def test_a_forced_mode_is_not_replaced(model: Path) -> None:
    async with restarting_pair(model, uplink_bytes_per_s=SLOW_BYTES_PER_S) as (cloud, client):
        ask = Ask(QUESTION, CONTEXT, mode=Mode.KV_BF16, deadline_s=20, max_tokens=8)
        asking = asyncio.create_task(answer(client, ask))
        await restart_during(cloud, asking)
        with pytest.raises(PeerUnavailableError, match="lost this session"):
            await asyncio.wait_for(asking, 20)
        await eventually(lambda: cloud.reserved_bytes == 0)

"""The link breaks, the cloud restarts: a request goes on, or says honestly why not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cloud_server.app import CloudServer
from edge_agent.app import EdgeAgent
from scout_core.errors import PeerUnavailableError
from scout_core.modes import Mode
from scout_core.rpc.client import Ask, InferenceClient
from scout_core.testbed.link import LinkConfig
from scout_core.testbed.proxy import LinkEmulator
from tests.support.testbed import (
    CONTEXT,
    QUESTION,
    answer,
    cloud_settings,
    edge_settings,
    eventually,
    running_cloud,
    running_edge,
)
from tests.support.tiny_models import save_tiny_model

WHOLE_KV = Ask(QUESTION, CONTEXT, mode=Mode.KV_BF16, deadline_s=30, max_tokens=8)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


def sessions(cloud: CloudServer) -> int:
    assert cloud.host is not None
    return cloud.host.sessions_in_progress


async def test_session_goes_on_after_a_reset_in_the_middle_of_its_transfer(model: Path) -> None:
    async with (
        # Heartbeats queue behind up to a second of payload here: five of them may be late.
        running_cloud(model, heartbeat_interval_s=1.0) as cloud,
        LinkEmulator(LinkConfig.constant(1.0, 10.0, 0.02), ("127.0.0.1", cloud.port)) as link,
        running_edge(model, f"127.0.0.1:{link.address[1]}") as edge,
        InferenceClient(f"127.0.0.1:{edge.port}") as client,
    ):
        undisturbed = await answer(client, WHOLE_KV)
        asking = asyncio.create_task(answer(client, WHOLE_KV))
        await eventually(lambda: sessions(cloud) == 1)
        await asyncio.sleep(0.5)  # 130 kB take a second
        assert not asking.done()
        assert link.reset_connections() >= 1
        disturbed = await asyncio.wait_for(asking, 20)
        assert disturbed.tokens == undisturbed.tokens
        assert "resumed 1 times" in disturbed.finished.degradation
        # Nothing acked was sent twice: far less than two payloads crossed.
        crossed = disturbed.finished.bytes
        assert crossed.uplink_bytes < 1.7 * crossed.payload_bytes


async def test_restarted_cloud_fails_the_session_it_lost_and_serves_the_next(model: Path) -> None:
    cloud = CloudServer(cloud_settings(model, uplink_bytes_per_s=40_000.0))
    await cloud.start()
    async with (
        running_edge(model, f"127.0.0.1:{cloud.port}") as edge,
        InferenceClient(f"127.0.0.1:{edge.port}") as client,
    ):
        asking = asyncio.create_task(answer(client, WHOLE_KV))
        await eventually(lambda: sessions(cloud) == 1)
        await asyncio.sleep(0.5)
        await cloud.close()
        address = f"127.0.0.1:{cloud.port}"
        again = CloudServer(cloud_settings(model, listen=address))
        await again.start()
        try:
            with pytest.raises(PeerUnavailableError, match="lost this session"):
                await asyncio.wait_for(asking, 20)
            await eventually(lambda: again.live_sessions == 0)
            await edge.wait_attached(10)
            await asyncio.sleep(0.1)
            got = await answer(client, WHOLE_KV)
            assert got.finished.deadline_met
        finally:
            await again.close()


async def test_without_a_cloud_the_edge_says_so_at_once(model: Path) -> None:
    edge = EdgeAgent(edge_settings(model, "127.0.0.1:1"))
    await edge.start()
    try:
        async with InferenceClient(f"127.0.0.1:{edge.port}") as client:
            with pytest.raises(PeerUnavailableError, match="not reachable") as caught:
                await asyncio.wait_for(answer(client, WHOLE_KV), 2)
            assert float(caught.value.details["retry_after_s"]) > 0
            assert not (await client.status()).edge.attached
    finally:
        await edge.close()

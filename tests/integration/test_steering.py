"""A KV transfer on a link that is not what was forecast: it changes its codec or leaves the rest
to the cloud, loses nothing that was sent, and says so."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cloud_server.app import CloudServer
from edge_agent.app import EdgeAgent
from scout_core.control.samples import TransferSample
from scout_core.modes import Mode
from scout_core.rpc.client import Ask, InferenceClient
from scout_core.rpc.messages import mode_from_wire
from scout_core.testbed.link import LinkConfig
from scout_core.testbed.proxy import LinkEmulator
from tests.support.testbed import CONTEXT, QUESTION, cloud_settings, edge_settings
from tests.support.tiny_models import save_tiny_model

DEADLINE_S = 3.0
ANSWER_TOKENS = 6


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("steering") / "llama")


@asynccontextmanager
async def linked_agent(
    model: Path, up_mbps: float, **edge: Any
) -> AsyncGenerator[tuple[EdgeAgent, InferenceClient]]:
    """An agent behind a link of the given rate that believes in 100 Mbit/s."""
    server = CloudServer(cloud_settings(model, heartbeat_interval_s=1.0))
    await server.start()
    try:
        config = LinkConfig.constant(up_mbps, 100.0, 0.02)
        async with LinkEmulator(config, ("127.0.0.1", server.port)) as link:
            host, port = link.address
            agent = EdgeAgent(edge_settings(model, f"{host}:{port}", **edge))
            await agent.start()
            try:
                await agent.wait_attached(timeout_s=10)
                teach_fast_link(agent)
                async with InferenceClient(f"127.0.0.1:{agent.port}") as client:
                    yield agent, client
            finally:
                await agent.close()
    finally:
        await server.close()


def teach_fast_link(agent: EdgeAgent) -> None:
    """Observations of 100 Mbit/s, as an agent has them that just left a good spot."""
    host = agent.require_host()
    now = time.monotonic()
    for age_s in range(20, 0, -1):
        host.estimator.observe(TransferSample(1_250_000, 0.1, False, now - 0.1 * age_s))


async def ask(client: InferenceClient, **changes: Any) -> tuple[str, Any, Any]:
    text, started, finished = "", None, None
    question = Ask(
        QUESTION, context_text=CONTEXT, deadline_s=DEADLINE_S, max_tokens=ANSWER_TOKENS, **changes
    )
    async for response in client.generate(question):
        match response.WhichOneof("event"):
            case "started":
                started = response.started
            case "token":
                text += response.token.text
            case _:
                finished = response.finished
    return text, started, finished


async def test_a_collapsed_link_leaves_the_rest_to_the_cloud_and_the_answer_stays(
    model: Path,
) -> None:
    async with linked_agent(model, up_mbps=0.25, policy="fixed:kv_bf16") as (_, client):
        text, started, finished = await ask(client)
        assert mode_from_wire(started.mode) is Mode.KV_BF16
        assert mode_from_wire(finished.mode) is not Mode.KV_BF16
        assert "deadline_forecast" in finished.degradation
        assert finished.bytes.payload_bytes < started.predicted_payload_bytes
        undisturbed, _, _ = await ask(client, mode=Mode.SCOUT, retention=1.0)
        assert text == undisturbed


async def test_a_forced_mode_is_kept_whatever_the_link_does(model: Path) -> None:
    async with linked_agent(model, up_mbps=0.6) as (_, client):
        _, _, finished = await ask(client, mode=Mode.KV_BF16)
        assert mode_from_wire(finished.mode) is Mode.KV_BF16
        assert finished.degradation == ""


async def test_a_link_as_forecast_changes_nothing(model: Path) -> None:
    async with linked_agent(model, up_mbps=100.0, policy="fixed:kv_bf16") as (_, client):
        _, _, finished = await ask(client)
        assert mode_from_wire(finished.mode) is Mode.KV_BF16
        assert finished.degradation == ""
        assert finished.deadline_met


async def test_time_left_refines_the_kv_that_was_sent_and_the_response_says_so(
    model: Path,
) -> None:
    async with linked_agent(model, up_mbps=100.0, policy="fixed:kv_int4") as (_, client):
        # First, so that the agent holds the KV and the second payload is made in no time.
        direct, _, kept = await ask(client, mode=Mode.KV_INT8)
        assert kept.degradation == ""
        text, started, finished = await ask(client)
        assert mode_from_wire(started.mode) is Mode.KV_INT4
        assert mode_from_wire(finished.mode) is Mode.KV_INT8
        assert "link_recovered" in finished.degradation
        assert "positions refined by" in finished.degradation
        assert finished.bytes.payload_bytes > started.predicted_payload_bytes
        assert finished.deadline_met
        assert text == direct

"""The calibrated transform between real daemons: used where both ends hold the same one and the
link makes it pay, said in the response where they do not."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cloud_server.app import CloudServer
from edge_agent.app import EdgeAgent
from scout_core.control.samples import TransferSample
from scout_core.modes import Mode
from scout_core.rpc.client import Ask, InferenceClient
from scout_core.testbed.link import LinkConfig
from scout_core.testbed.proxy import LinkEmulator
from tests.support.testbed import (
    CONTEXT,
    QUESTION,
    Answered,
    answer,
    cloud_settings,
    edge_settings,
)
from tests.support.tiny_models import save_tiny_model, tiny_engine
from tests.support.tiny_transform import save_tiny_basis

SLOW_MBPS = 0.5
"""Bytes saved are seconds then, also on a machine that is busy with something else."""
SLOW_BYTES_PER_S = SLOW_MBPS * 125_000
FAST_MBPS = 100.0
FAST_BYTES_PER_S = 5e9
"""As a machine has it to itself."""


@dataclass(frozen=True)
class Files:
    model: Path
    basis: Path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("transform")
    model = save_tiny_model(folder / "llama")
    return Files(model, save_tiny_basis(tiny_engine(model), folder / "basis.safetensors"))


@asynccontextmanager
async def linked_pair(
    files: Files,
    mbps: float,
    *,
    believed_bytes_per_s: float,
    cloud_transform: str = "",
    **edge: Any,
) -> AsyncGenerator[InferenceClient]:
    """A client of an edge that believes in a rate, its cloud behind a link of another."""
    held = cloud_transform or str(files.basis)
    server = CloudServer(cloud_settings(files.model, heartbeat_interval_s=1.0, transform=held))
    await server.start()
    try:
        config = LinkConfig.constant(mbps, 100.0, 0.01)
        async with LinkEmulator(config, ("127.0.0.1", server.port)) as link:
            host, port = link.address
            settings = edge_settings(
                files.model, f"{host}:{port}", transform=str(files.basis), **edge
            )
            agent = EdgeAgent(settings)
            await agent.start()
            try:
                await agent.wait_attached(timeout_s=10)
                teach(agent, believed_bytes_per_s)
                async with InferenceClient(f"127.0.0.1:{agent.port}") as client:
                    yield client
            finally:
                await agent.close()
    finally:
        await server.close()


def teach(agent: EdgeAgent, bytes_per_s: float) -> None:
    host = agent.require_host()
    now = time.monotonic()
    for age in range(20, 0, -1):
        size = int(bytes_per_s / 10)
        host.estimator.observe(TransferSample(size, 0.1, False, now - 0.1 * age))


def ask(mode: Mode | None = None, **changes: Any) -> Ask:
    values: dict[str, Any] = {
        "context_text": CONTEXT,
        "deadline_s": 10.0,
        "mode": mode,
        "max_tokens": 6,
    }
    return Ask(QUESTION, **(values | changes))


async def answered(files: Files, mode: Mode, **linked: Any) -> Answered:
    """One answer over the slow link, whose rate is known."""
    known: dict[str, Any] = {"mbps": SLOW_MBPS, "believed_bytes_per_s": SLOW_BYTES_PER_S}
    async with linked_pair(files, **(known | linked)) as client:
        retention = 0.5 if mode is Mode.KV_SELECT else None
        return await answer(client, ask(mode, retention=retention))


@pytest.mark.parametrize(
    ("mode", "codec"), [(Mode.KV_INT4, "transform"), (Mode.KV_SELECT, "transform_graded")]
)
async def test_a_transform_that_both_ends_hold_carries_the_kv(
    files: Files, mode: Mode, codec: str
) -> None:
    through = await answered(files, mode)
    plain = await answered(files, mode, cloud_transform="none")
    assert through.finished.kv_codecs == codec
    assert through.finished.degradation == ""
    assert through.finished.bytes.payload_bytes < plain.finished.bytes.payload_bytes
    assert through.started.predicted_payload_bytes == pytest.approx(
        through.finished.bytes.payload_bytes, rel=0.25
    )


async def test_through_the_transform_the_answer_stays(files: Files) -> None:
    through = await answered(files, Mode.KV_INT4)
    exact = await answered(files, Mode.KV_BF16)
    assert exact.finished.kv_codecs == "raw_bf16"
    assert through.tokens == exact.tokens


async def test_kv_that_the_edge_holds_already_is_graded_by_the_question(files: Files) -> None:
    async with linked_pair(files, SLOW_MBPS, believed_bytes_per_s=SLOW_BYTES_PER_S) as client:
        streamed = await answer(client, ask(Mode.KV_INT4))
        graded = await answer(client, ask(Mode.KV_INT4))
    assert streamed.finished.kv_codecs == "transform"
    assert graded.finished.kv_codecs == "transform_graded"
    assert graded.finished.bytes.payload_bytes < streamed.finished.bytes.payload_bytes
    assert graded.finished.degradation == ""
    assert graded.tokens == streamed.tokens


async def test_a_cloud_without_the_transform_gets_plain_groups_and_the_response_says_so(
    files: Files,
) -> None:
    plain = await answered(files, Mode.KV_INT4, cloud_transform="none")
    assert plain.finished.kv_codecs == "int4_groups"
    assert "does not hold this agent's transform" in plain.finished.degradation


async def test_plain_groups_go_while_the_link_is_believed_fast(files: Files) -> None:
    fast: dict[str, Any] = {"mbps": FAST_MBPS, "believed_bytes_per_s": FAST_BYTES_PER_S}
    plain = await answered(files, Mode.KV_INT4, **fast)
    # what it measures on the way may correct it: every block says how it is coded
    assert plain.finished.kv_codecs.split("+")[0] == "int4_groups"
    assert plain.finished.degradation == ""

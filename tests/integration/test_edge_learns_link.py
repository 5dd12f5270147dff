"""What the edge learns of its link beside goodput: silence, and where its forecasts were wrong."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path

import pytest

from scout_core.control.samples import TransferSample
from scout_core.errors import ScoutError
from scout_core.modes import Mode
from scout_core.rpc.client import Ask, InferenceClient
from scout_core.testbed.link import LinkConfig
from scout_core.testbed.proxy import LinkEmulator
from tests.support.testbed import CONTEXT, QUESTION, answer, eventually, running_cloud, running_edge
from tests.support.tiny_models import save_tiny_model

WHOLE_KV = Ask(QUESTION, CONTEXT, mode=Mode.KV_BF16, deadline_s=30, max_tokens=4)
FORECAST_MBPS = 1.0
"""What the link carries: acks confirm it, so that only silence can say otherwise."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("learns") / "llama")


async def test_a_finished_transfer_corrects_the_forecasts_of_the_next(model: Path) -> None:
    async with (
        running_cloud(model) as cloud,
        LinkEmulator(LinkConfig.constant(2.0, 10.0, 0.02), ("127.0.0.1", cloud.port)) as link,
        running_edge(model, f"127.0.0.1:{link.address[1]}") as agent,
        InferenceClient(f"127.0.0.1:{agent.port}") as client,
    ):
        estimator = agent.require_host().estimator
        estimator.observe(TransferSample(1_000_000, 1.0, False, time.monotonic()))
        before = estimator.forecast(time.monotonic()).correction
        await answer(client, WHOLE_KV)
        after = estimator.forecast(time.monotonic()).correction
        # The link was four times slower than forecast: late transfers are more likely from now on.
        assert sum(after) < sum(before)


async def test_a_link_that_falls_silent_is_believed_slower_before_any_ack_says_so(
    model: Path,
) -> None:
    async with (
        running_cloud(model) as cloud,
        LinkEmulator(LinkConfig.constant(1.0, 10.0, 0.02), ("127.0.0.1", cloud.port)) as link,
        running_edge(model, f"127.0.0.1:{link.address[1]}") as agent,
        InferenceClient(f"127.0.0.1:{agent.port}") as client,
    ):
        host = agent.require_host()
        now = time.monotonic()
        for age_s in range(10, 0, -1):
            rate = FORECAST_MBPS * 125_000
            host.estimator.observe(TransferSample(round(rate * 0.1), 0.1, False, now - 0.1 * age_s))
        asking = asyncio.create_task(answer(client, WHOLE_KV))
        await eventually(lambda: cloud.host is not None and cloud.host.sessions_in_progress == 1)
        await asyncio.sleep(0.3)
        believed = host.estimator.expected_bytes_per_s(time.monotonic())
        link.outage(3.0)
        await asyncio.sleep(1.5)
        assert host.estimator.expected_bytes_per_s(time.monotonic()) < believed / 2
        with suppress(ScoutError):
            await asking

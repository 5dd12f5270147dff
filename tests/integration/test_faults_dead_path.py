"""A path that lets nothing through: noticed within 5 s, and no request waits on it in silence."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from cloud_server.app import CloudServer
from edge_agent.app import EdgeAgent
from scout_core.errors import PeerTimeoutError, PeerUnavailableError
from scout_core.modes import Mode
from scout_core.rpc.client import Ask, InferenceClient
from scout_core.testbed.link import LinkConfig
from scout_core.testbed.proxy import LinkEmulator
from tests.support.testbed import (
    CONTEXT,
    QUESTION,
    answer,
    eventually,
    running_cloud,
    running_edge,
)
from tests.support.tiny_models import save_tiny_model

NOTICED_S = 5.0
SLACK_S = 0.5
"""For the processors of a busy test machine, not for the daemons."""
LONG_OUTAGE_S = 60.0
WHOLE_KV = Ask(QUESTION, CONTEXT, mode=Mode.KV_BF16, deadline_s=30, max_tokens=8)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("dead_path") / "llama")


@dataclass(frozen=True, slots=True)
class Linked:
    """A pair with a link between that can fail."""

    cloud: CloudServer
    link: LinkEmulator
    edge: EdgeAgent
    client: InferenceClient

    @property
    def sessions(self) -> int:
        assert self.cloud.host is not None
        return self.cloud.host.sessions_in_progress


@asynccontextmanager
async def linked(model: Path, up_mbps: float = 1.0, **edge: Any) -> AsyncGenerator[Linked]:
    async with (
        running_cloud(model, heartbeat_interval_s=1.0) as cloud,
        LinkEmulator(LinkConfig.constant(up_mbps, 10.0, 0.02), ("127.0.0.1", cloud.port)) as link,
        running_edge(model, f"127.0.0.1:{link.address[1]}", **edge) as agent,
        InferenceClient(f"127.0.0.1:{agent.port}") as client,
    ):
        yield Linked(cloud, link, agent, client)


async def in_mid_transfer(pair: Linked) -> None:
    """Returns when the request just asked has sent some of its 130 kB, which take a second."""
    await eventually(lambda: pair.sessions == 1)
    await asyncio.sleep(0.3)


async def test_a_dead_path_is_noticed_within_five_seconds_with_and_without_a_request(
    model: Path,
) -> None:
    async with linked(model) as pair:
        with capture_logs() as logs:
            asking = asyncio.create_task(answer(pair.client, WHOLE_KV))
            await in_mid_transfer(pair)
            pair.link.outage(5.5)
            began_s = time.monotonic()
            noticed_s: dict[str, float] = {}

            def notice() -> bool:
                for entry in logs:
                    noticed_s.setdefault(entry["event"], time.monotonic() - began_s)
                return {"session_reconnecting", "cloud_detached"} <= noticed_s.keys()

            await eventually(notice, within_s=8.0)
        assert noticed_s["session_reconnecting"] < NOTICED_S + SLACK_S
        assert noticed_s["cloud_detached"] < NOTICED_S + SLACK_S
        # A question asked meanwhile waits for the link, which is back before it is due.
        waited = await asyncio.wait_for(answer(pair.client, WHOLE_KV), 20)
        assert waited.finished.deadline_met
        disturbed = await asyncio.wait_for(asking, 20)
        assert "resumed" in disturbed.finished.degradation


async def test_an_overdue_request_on_a_dead_path_is_given_up_a_second_after_its_deadline(
    model: Path,
) -> None:
    async with linked(model) as pair:
        began_s = time.monotonic()
        asking = asyncio.create_task(answer(pair.client, replace(WHOLE_KV, deadline_s=3.0)))
        await in_mid_transfer(pair)
        pair.link.outage(LONG_OUTAGE_S)
        with pytest.raises(PeerTimeoutError, match="the link is down") as caught:
            await asyncio.wait_for(asking, 20)
        assert 4.0 < time.monotonic() - began_s < 4.0 + SLACK_S
        assert float(caught.value.details["silent_s"]) >= 2.5


async def test_a_request_that_may_be_late_is_answered_after_the_outage(model: Path) -> None:
    async with linked(model, overdue_grace_s=30.0) as pair:
        asking = asyncio.create_task(answer(pair.client, replace(WHOLE_KV, deadline_s=0.5)))
        await in_mid_transfer(pair)
        pair.link.outage(3.0)
        got = await asyncio.wait_for(asking, 20)
        assert got.tokens
        assert not got.finished.deadline_met


async def test_a_slow_link_makes_an_answer_late_and_not_fail(model: Path) -> None:
    """The deadline is long past, but the cloud is heard: bytes arrive."""
    async with linked(model, up_mbps=0.5) as pair:
        got = await asyncio.wait_for(answer(pair.client, replace(WHOLE_KV, deadline_s=0.5)), 20)
        assert got.tokens
        assert not got.finished.deadline_met
        assert got.finished.timing.ttft_s > 1.5


async def test_a_question_asked_while_the_cloud_is_lost_is_refused_when_its_time_is_up(
    model: Path,
) -> None:
    async with linked(model) as pair:
        await answer(pair.client, WHOLE_KV)
        with capture_logs() as logs:
            pair.link.outage(LONG_OUTAGE_S)
            await eventually(
                lambda: any(entry["event"] == "cloud_detached" for entry in logs),
                within_s=NOTICED_S + SLACK_S,
            )
        began_s = time.monotonic()
        with pytest.raises(PeerUnavailableError, match="not reachable"):
            await answer(pair.client, replace(WHOLE_KV, deadline_s=0.5))
        assert 0.5 < time.monotonic() - began_s < 0.5 + 1.0 + SLACK_S

"""One cloud server that schedules its uplink, one edge agent: what callers, people and dashboards
see of it."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from scout_core.cli.status import command
from scout_core.codec.positions import encode_positions
from scout_core.codec.tokens import encode_tokens
from scout_core.errors import DeadlineError
from scout_core.modes import AgentId, Execution, Mode
from scout_core.protocol import actions, events
from scout_core.protocol.blocks import BlockKind, encode_block
from scout_core.protocol.opening import CAUSE_ALLOCATION, Offer
from scout_core.rpc.client import Ask
from scout_core.rpc.messages import mode_from_wire
from tests.support.raw_session import RawSession, opening, raw_session
from tests.support.testbed import CONTEXT, QUESTION, Testbed, answer, eventually, running_pair
from tests.support.tiny_models import save_tiny_model
from tests.support.uplink_cell import LikesKv, believe

HEARTBEAT_S = 0.5
TOKENS = tuple(range(10, 60))
KV_BYTES = 100_000
"""A little less than the whole KV of the test's context in bf16 (about 131 kB)."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("uplink") / "llama")


def scheduled(model: Path, bytes_per_s: float = 10e6, **settings: Any) -> Any:
    """A pair whose uplink carries so much."""
    cloud = {
        "heartbeat_interval_s": HEARTBEAT_S,
        "uplink_capacity_bytes_per_s": {"default": bytes_per_s},
    }
    return running_pair(model, cloud=cloud | settings, edge={"scout_model": ""})


def ask(deadline_s: float = 10.0, **changes: Any) -> Ask:
    return Ask(QUESTION, context_text=CONTEXT, deadline_s=deadline_s, max_tokens=4, **changes)


async def credit(session: RawSession, least_bytes: int) -> None:
    """Waits for the cloud to grant so much."""
    while True:
        match await session.receive():
            case events.CreditGranted(granted) if granted >= least_bytes:
                return
            case None:
                raise AssertionError("the stream ended before there was credit")
            case _:
                pass


def scrape(bed: Testbed) -> dict[str, float]:
    """Every sample of the metrics endpoint, by name with labels."""
    url = f"http://127.0.0.1:{bed.cloud.metrics_port}/metrics"
    with urllib.request.urlopen(url, timeout=5) as response:
        text = response.read().decode()
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


async def test_what_the_scheduler_asks_for_is_sent_and_said_and_the_answer_is_the_same(
    model: Path,
) -> None:
    async with scheduled(model) as bed:
        bed.edge.require_host().quality = LikesKv()
        believe(bed.edge, bytes_per_s=2_000.0)  # the link as it was before its uplink was free
        asked = await answer(bed.client, ask())
        assert mode_from_wire(asked.started.mode) is Mode.SCOUT
        assert mode_from_wire(asked.finished.mode) is Mode.KV_BF16
        said = "the cloud's scheduler asked for kv_bf16@1 instead of scout@1"
        assert asked.finished.degradation == said
        assert asked.finished.bytes.payload_bytes > KV_BYTES
        forced = await answer(bed.client, ask(mode=Mode.KV_BF16))
        assert asked.tokens == forced.tokens


async def test_an_edge_that_hopes_for_too_much_is_asked_for_less(model: Path) -> None:
    async with scheduled(model, bytes_per_s=20_000.0) as bed:
        bed.edge.require_host().quality = LikesKv()
        believe(bed.edge, bytes_per_s=10e6)
        asked = await answer(bed.client, ask(deadline_s=2.0))
        assert mode_from_wire(asked.started.mode) is Mode.KV_BF16
        assert asked.finished.bytes.payload_bytes < 2.0 * 20_000.0
        assert "the cloud's scheduler asked for" in asked.finished.degradation
        assert asked.finished.deadline_met


async def test_a_forced_mode_is_sent_as_forced_under_pacing(model: Path) -> None:
    async with scheduled(model, bytes_per_s=200_000.0) as bed:
        asked = await answer(bed.client, ask(mode=Mode.KV_BF16))
        assert mode_from_wire(asked.finished.mode) is Mode.KV_BF16
        assert asked.finished.degradation == ""
        # 131 kB at 200 kB/s: the credit was paced.
        assert asked.finished.timing.transfer_s > KV_BYTES / 200_000.0


async def test_a_selection_is_executed_as_the_scheduler_asked(model: Path) -> None:
    """Two offers of one retention: the switch names mode and retention, the share the execution."""
    async with scheduled(model) as bed:
        host = bed.cloud.host
        assert host is not None
        kept = np.arange(0, 50, 2)
        parameters = opening(
            host,
            TOKENS,
            agent_id=AgentId("edge"),
            mode=Mode.KV_BF16,
            offers=(
                Offer(Mode.KV_BF16, 1.0, 20_000, 0.5, 0.0),
                Offer(Mode.SCOUT, 0.5, 100, 0.7, 0.0, Execution.EVICT),
                Offer(Mode.SCOUT, 0.5, 60, 0.9, 0.0, Execution.SPARSE),
            ),
        )
        async with raw_session(bed.cloud_address) as session:
            await session.send(actions.SendOpen(parameters))
            share = (await session.accepted()).share
            assert share is not None
            assert (share.mode, share.execution) == (Mode.SCOUT, Execution.SPARSE)
            await session.send(actions.SendSwitch(Mode.SCOUT, 0.5, 0, CAUSE_ALLOCATION))
            selection = encode_positions(kept, len(TOKENS))
            sent = encode_tokens([TOKENS[index] for index in kept], host.engine.vocabulary)
            indices = encode_block(BlockKind.INDICES, 0, 0, len(kept), selection)
            tokens = encode_block(BlockKind.TOKENS, 0, 0, len(kept), sent)
            await credit(session, len(indices) + len(tokens))
            await session.payload(indices + tokens)
            await session.finish()
            _, done = await session.answer()
        assert done.summary.execution is Execution.SPARSE
        said = "the cloud's scheduler asked for scout@0.5 instead of kv_bf16@1"
        assert done.summary.degradation == said


async def test_a_hopeless_deadline_is_refused_with_the_one_that_would_do(model: Path) -> None:
    async with scheduled(model, bytes_per_s=50_000.0) as bed:
        with pytest.raises(DeadlineError, match="whole uplink") as refused:
            await answer(bed.client, ask(deadline_s=0.5, mode=Mode.KV_BF16))
        assert float(refused.value.details["earliest_s"]) > KV_BYTES / 50_000.0


async def test_a_session_past_the_control_stream_is_not_served(model: Path) -> None:
    async with scheduled(model) as bed:
        host = bed.cloud.host
        assert host is not None
        async with raw_session(bed.cloud_address) as session:
            parameters = opening(host, TOKENS)
            await session.send(actions.SendOpen(parameters))
            _, error = await session.failure()
            assert "not attached" in error.message


async def test_an_unscheduled_group_is_served_as_ever_beside_a_scheduled_one(model: Path) -> None:
    cloud = {
        "uplink_capacity_bytes_per_s": {"elsewhere": 1_000.0},
        "heartbeat_interval_s": HEARTBEAT_S,
    }
    async with running_pair(model, cloud=cloud, edge={"scout_model": ""}) as bed:
        asked = await answer(bed.client, ask(mode=Mode.KV_BF16))
        assert asked.finished.degradation == ""
        assert bed.cloud.uplink.status() == ()


async def test_prometheus_finds_grants_rates_compliance_and_times(model: Path) -> None:
    async with scheduled(model, metrics_listen="127.0.0.1:0") as bed:
        for _ in range(2):
            await answer(bed.client, ask())
        samples = await asyncio.to_thread(scrape, bed)
        group = 'group="default"'
        assert samples[f"scout_cloud_uplink_capacity_bytes_per_second{{{group}}}"] == 10e6
        met = [
            value
            for name, value in samples.items()
            if name.startswith("scout_cloud_first_tokens_total") and 'deadline="met"' in name
        ]
        assert sum(met) == 2
        assert samples['scout_cloud_sessions_ended_total{outcome="OK"}'] == 2
        assert samples["scout_cloud_uplink_decision_seconds_count"] == 2
        assert samples["scout_cloud_uplink_solve_seconds_count"] >= 2
        assert samples["scout_cloud_agents"] == 1
        assert samples["scout_cloud_context_store_bytes"] > 0
        grants = [name for name in samples if name.startswith("scout_cloud_uplink_grants_total")]
        assert grants
        assert all('tenant="default"' in name and "mode=" in name for name in grants)
        # Labels name no session and no agent.
        assert not re.search(r'"edge"|session=', " ".join(samples))


async def test_status_shows_the_uplink_and_who_was_granted_what(model: Path) -> None:
    async with scheduled(model, bytes_per_s=100_000.0) as bed:
        asking = asyncio.create_task(answer(bed.client, ask(mode=Mode.KV_BF16)))
        await asyncio.sleep(0.6)
        runner = CliRunner()
        shown = await asyncio.to_thread(runner.invoke, command, [bed.cloud_address, "--json"])
        watched = await asyncio.to_thread(
            runner.invoke, command, [bed.cloud_address, "--watch", "0.1", "--count", "2"]
        )
        await asking
        cloud = json.loads(shown.output.splitlines()[-1])["cloud"]  # logs come before
        (agent,) = cloud["agents"]
        (uplink,) = cloud["uplinks"]
        assert uplink["capacity_bytes_per_s"] == 100_000.0
        assert agent["granted_bytes_per_s"] == uplink["granted_bytes_per_s"] == 100_000.0
        assert agent["granted_mode"] == "MODE_KV_BF16"
        assert watched.exit_code == 0
        assert "granted Mbit/s" in watched.output
        assert "0.80" in watched.output


async def test_a_waiting_session_whose_edge_leaves_is_over_at_once(model: Path) -> None:
    async with scheduled(model, bytes_per_s=20_000.0) as bed:
        host = bed.cloud.host
        assert host is not None
        mine: dict[str, Any] = {"agent_id": AgentId(bed.edge.settings.agent_id)}
        kv = Offer(Mode.KV_BF16, 1.0, KV_BYTES, 1.0, 0.0)
        mine |= {"mode": Mode.KV_BF16, "offers": (kv,)}
        async with raw_session(bed.cloud_address) as first:
            await first.send(actions.SendOpen(opening(host, TOKENS, deadline_s=6.0, **mine)))
            await first.accepted()
            async with raw_session(bed.cloud_address) as second:
                await second.send(actions.SendOpen(opening(host, TOKENS, deadline_s=30.0, **mine)))
                share = (await second.accepted()).share
                assert share is not None
                assert share.rate_bytes_per_s < 10_000.0
                assert bed.cloud.live_sessions == 2
            # A session that could be resumed would stay for 30 s.
            await eventually(lambda: bed.cloud.live_sessions == 1)

"""A path with long round trips: connecting takes several of them and is waited for."""

from __future__ import annotations

from pathlib import Path

from scout_core.rpc.client import Ask, InferenceClient
from scout_core.testbed.link import LinkConfig
from scout_core.testbed.proxy import LinkEmulator
from tests.support.testbed import CONTEXT, QUESTION, answer, running_cloud, running_edge
from tests.support.tiny_models import save_tiny_model

ROUND_TRIP_S = 0.4


async def test_one_attempt_connects_each_channel_over_a_long_round_trip(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "llama")
    async with (
        running_cloud(model, heartbeat_interval_s=1.0) as cloud,
        LinkEmulator(
            LinkConfig.constant(10.0, 10.0, ROUND_TRIP_S), ("127.0.0.1", cloud.port)
        ) as link,
        running_edge(model, f"127.0.0.1:{link.address[1]}") as edge,
        InferenceClient(f"127.0.0.1:{edge.port}") as client,
    ):
        got = await answer(client, Ask(QUESTION, CONTEXT, deadline_s=20, max_tokens=4))
        assert got.finished.deadline_met
        assert link.statistics().total_connections == 2

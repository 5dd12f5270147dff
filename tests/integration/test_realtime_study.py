"""The real-time check: requests through both daemons, and the twin's word on the same ones."""

from __future__ import annotations

import math
from pathlib import Path

from scout_core.evaluation.policy_links import Link
from scout_core.evaluation.realtime_requests import TimedRequest, timed_requests
from scout_core.evaluation.realtime_study import link_config, row_of, run_trace
from scout_core.rpc.client import InferenceClient
from scout_core.testbed.proxy import LinkEmulator
from scout_core.testbed.schedule import RateSchedule
from tests.support.testbed import CONTEXT, QUESTION, running_cloud, running_edge
from tests.support.tiny_models import save_tiny_model

STEADY = Link("steady", "LTE", RateSchedule.constant(2.0))


async def test_requests_in_real_time_take_about_what_the_twin_says(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "llama")
    requests = [TimedRequest(0.1 + 0.8 * number, 5.0, CONTEXT, QUESTION) for number in range(3)]
    too_long = TimedRequest(0.2, 5.0, CONTEXT, "why? " * 500)
    async with (
        running_cloud(model, heartbeat_interval_s=1.0) as cloud,
        LinkEmulator(link_config(STEADY.schedule), ("127.0.0.1", cloud.port)) as emulator,
        running_edge(model, f"127.0.0.1:{emulator.address[1]}", policy="fixed:kv_bf16") as edge,
        InferenceClient(f"127.0.0.1:{edge.port}") as client,
    ):
        outcomes = await run_trace(client, emulator, STEADY, [*requests, too_long])
    answered, failed = outcomes[:-1], outcomes[-1]
    for outcome in answered:
        assert outcome.met
        assert outcome.twin_met
        # 130 kB at 2 Mbit/s: half a second of link, the rest is this machine's business.
        assert outcome.twin_ttft_s > 0.5
        assert outcome.ttft_s > 0.9 * outcome.twin_ttft_s
    assert failed.error
    assert math.isinf(failed.ttft_s)
    row = row_of(STEADY, outcomes)
    assert (row.requests, row.failed, row.compliance, row.twin_compliance) == (4, 1, 0.75, 0.75)
    assert sum(row.modes.values()) == 3
    assert sum(row.errors.values()) == 1


def test_requests_are_the_same_for_equal_seeds_and_each_context_is_new() -> None:
    requests = timed_requests(20, "7-0")
    assert requests == timed_requests(20, "7-0")
    assert requests != timed_requests(20, "7-1")
    assert len({request.context for request in requests}) == 20
    assert list(requests) == sorted(requests, key=lambda request: request.arrival_s)

"""One cloud server and several edge agents behind one emulated uplink, all in one event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from cloud_server.app import CloudServer
from cloud_server.settings import Capacity
from edge_agent.app import EdgeAgent
from scout_core.control.samples import TransferSample
from scout_core.modes import Execution, Mode
from scout_core.rpc.client import Ask, InferenceClient
from scout_core.rpc.messages import mode_from_wire
from scout_core.testbed.link import LinkConfig
from scout_core.testbed.proxy import LinkEmulator
from scout_core.testbed.queueing import Discipline
from tests.support.testbed import CONTEXT, QUESTION, Answered, answer, edge_settings, running_cloud

GROUP = "cell"
BYTES_PER_MEGABIT = 125_000.0
HEARTBEAT_S = 0.5
RTT_S = 0.02
LIKING = {
    Mode.KV_BF16: 1.0,
    Mode.KV_INT8: 0.97,
    Mode.KV_INT4: 0.9,
    Mode.KV_SELECT: 0.8,
    Mode.SCOUT: 0.5,
}


class LikesKv:
    """Qualities under which the uplink matters: token ids, which always fit, are worth half."""

    def quality(
        self, mode: Mode, execution: Execution, retention: float, context_tokens: int
    ) -> float:
        return LIKING[mode] * (0.5 + 0.5 * retention)


@dataclass(frozen=True, slots=True)
class Cell:
    """The running agents and what they share."""

    cloud: CloudServer
    link: LinkEmulator
    edges: tuple[EdgeAgent, ...]
    clients: tuple[InferenceClient, ...]

    @property
    def uplink_address(self) -> str:
        host, port = self.link.address
        return f"{host}:{port}"

    async def ask_all(self, deadline_s: float, **changes: Any) -> tuple[Outcome, ...]:
        """The same question from every agent at once."""
        ask = Ask(QUESTION, context_text=CONTEXT, deadline_s=deadline_s, max_tokens=2, **changes)
        return tuple(await asyncio.gather(*(_timed(client, ask) for client in self.clients)))


@dataclass(frozen=True, slots=True)
class Outcome:
    """One answer."""

    answered: Answered
    asked_at_s: float

    @property
    def in_time(self) -> bool:
        return self.answered.finished.deadline_met

    @property
    def ttft_s(self) -> float:
        return self.answered.finished.timing.ttft_s

    @property
    def mode(self) -> Mode:
        return mode_from_wire(self.answered.finished.mode)


async def _timed(client: InferenceClient, ask: Ask) -> Outcome:
    asked_at_s = time.monotonic()
    return Outcome(await answer(client, ask), asked_at_s)


@asynccontextmanager
async def running_cell(
    model: Path,
    agents: int,
    up_mbps: float,
    *,
    capacity_bytes_per_s: Capacity | None,
    discipline: Discipline = Discipline.FIFO,
    **cloud: Any,
) -> AsyncGenerator[Cell]:
    """Everything attached, contexts prefilled, and every agent believing in the whole link.

    ``capacity_bytes_per_s`` None: nothing is scheduled.
    """
    if capacity_bytes_per_s is not None:
        cloud["uplink_capacity_bytes_per_s"] = {GROUP: capacity_bytes_per_s}
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            running_cloud(model, heartbeat_interval_s=HEARTBEAT_S, **cloud)
        )
        config = replace(LinkConfig.constant(up_mbps, 100.0, RTT_S), discipline=discipline)
        link = await stack.enter_async_context(LinkEmulator(config, ("127.0.0.1", server.port)))
        host, port = link.address
        edges = [
            EdgeAgent(
                edge_settings(
                    model,
                    f"{host}:{port}",
                    agent_id=f"edge-{number}",
                    uplink_group=GROUP,
                    scout_model="",
                )
            )
            for number in range(agents)
        ]
        for edge in edges:
            stack.push_async_callback(edge.close)
        # One after the other: models cannot be loaded in several threads at once.
        clients = [await _ready(stack, edge) for edge in edges]
        for edge in edges:
            believe(edge, up_mbps * BYTES_PER_MEGABIT)
        yield Cell(server, link, tuple(edges), tuple(clients))


async def _ready(stack: AsyncExitStack, edge: EdgeAgent) -> InferenceClient:
    await edge.start()
    await edge.wait_attached(timeout_s=30)
    edge.require_host().quality = LikesKv()
    client = await stack.enter_async_context(InferenceClient(f"127.0.0.1:{edge.port}"))
    await client.put_context(CONTEXT)
    return client


def believe(edge: EdgeAgent, bytes_per_s: float) -> None:
    """Observations of the link as the agent had them while it was alone."""
    now = time.monotonic()
    for age_s in range(20, 0, -1):
        edge.require_host().estimator.observe(
            TransferSample(round(bytes_per_s / 10), 0.1, False, now - 0.1 * age_s)
        )


@dataclass(frozen=True, slots=True)
class Sample:
    """What one session was granted and had delivered at one moment."""

    at_s: float
    rate_bytes_per_s: float
    received_bytes: int


async def watch_shares(
    cloud: CloudServer, traces: dict[str, list[Sample]], totals: list[float]
) -> None:
    """Samples every session's grant and progress, and the sum of all grants, until cancelled."""
    while True:
        now = time.monotonic()
        total = 0.0
        for session in cloud.uplink.sessions():
            total += session.rate_bytes_per_s
            traces.setdefault(session.opening.agent, []).append(
                Sample(now, session.rate_bytes_per_s, session.port.received_bytes)
            )
        totals.append(total)
        await asyncio.sleep(0.01)


def delivered_over_granted(trace: Sequence[Sample]) -> float:
    """Payload that arrived per byte granted, over all the time in which a session had a share."""
    granted = sum(
        before.rate_bytes_per_s * (after.at_s - before.at_s) for before, after in pairwise(trace)
    )
    return (trace[-1].received_bytes - trace[0].received_bytes) / granted

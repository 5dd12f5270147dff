"""Both daemons in one event loop, with tiny random-weight models and real grpc.aio between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from scout.v1 import inference_pb2

from cloud_server.app import CloudServer
from cloud_server.settings import CloudSettings
from edge_agent.app import EdgeAgent
from edge_agent.settings import EdgeSettings
from scout_core.rpc.client import Ask, InferenceClient

CONTEXT = (
    "The lighthouse stands on the northern cape and was built of granite by an engineer. "
    "The lamp was converted to electricity; the beam reaches twenty two miles. "
) * 4
QUESTION = "who built the lighthouse?"


@dataclass(frozen=True, slots=True)
class Testbed:
    """A running pair and a client of the edge."""

    __test__: ClassVar = False  # pytest takes a class of this name for tests

    cloud: CloudServer
    edge: EdgeAgent
    client: InferenceClient

    @property
    def edge_address(self) -> str:
        return f"127.0.0.1:{self.edge.port}"

    @property
    def cloud_address(self) -> str:
        return f"127.0.0.1:{self.cloud.port}"


@dataclass(frozen=True, slots=True)
class Answered:
    """One whole answer as its caller got it."""

    started: inference_pb2.Started
    finished: inference_pb2.Finished
    tokens: tuple[int, ...]
    text: str


async def answer(client: InferenceClient, ask: Ask) -> Answered:
    """Asks and checks the shape of the answer: started, tokens in order, finished."""
    started: inference_pb2.Started | None = None
    finished: inference_pb2.Finished | None = None
    tokens: list[int] = []
    text = ""
    async for response in client.generate(ask):
        match response.WhichOneof("event"):
            case "started":
                assert started is None
                started = response.started
            case "token":
                assert finished is None
                assert response.token.index == len(tokens)
                tokens.append(response.token.token_id)
                text += response.token.text
            case _:
                finished = response.finished
    assert started is not None
    assert finished is not None
    assert finished.answer_tokens == len(tokens)
    return Answered(started, finished, tuple(tokens), text)


def cloud_settings(model: Path, **changes: Any) -> CloudSettings:
    values: dict[str, Any] = {
        "listen": "127.0.0.1:0",
        "model": str(model),
        "server_id": "cloud",
        "compute_dtype": "float32",
        "threads": 1,
        "heartbeat_interval_s": 0.1,
        "drain_timeout_s": 5,
    }
    return CloudSettings(**(values | changes))


def edge_settings(model: Path, cloud_address: str, **changes: Any) -> EdgeSettings:
    values: dict[str, Any] = {
        "listen": "127.0.0.1:0",
        "cloud": cloud_address,
        "agent_id": "edge",
        "cloud_model": str(model),
        "scout_model": str(model),
        "compute_dtype": "float32",
        "threads": 1,
        "probe_bytes_per_minute": 0,
        "drain_timeout_s": 5,
    }
    return EdgeSettings(**(values | changes))


@asynccontextmanager
async def running_cloud(model: Path, **settings: Any) -> AsyncGenerator[CloudServer]:
    """A cloud server that serves; closed without a drain."""
    server = CloudServer(cloud_settings(model, **settings))
    try:
        await server.start()
        yield server
    finally:
        await server.close()


@asynccontextmanager
async def running_edge(
    model: Path, cloud_address: str, **settings: Any
) -> AsyncGenerator[EdgeAgent]:
    """An edge agent that its cloud has accepted; closed without a drain."""
    agent = EdgeAgent(edge_settings(model, cloud_address, **settings))
    try:
        await agent.start()
        await agent.wait_attached(timeout_s=20)
        yield agent
    finally:
        await agent.close()


@asynccontextmanager
async def running_pair(
    model: Path, *, cloud: dict[str, Any] | None = None, edge: dict[str, Any] | None = None
) -> AsyncGenerator[Testbed]:
    """Cloud and edge, attached, and a client of the edge."""
    async with (
        running_cloud(model, **(cloud or {})) as server,
        running_edge(model, f"127.0.0.1:{server.port}", **(edge or {})) as agent,
        InferenceClient(f"127.0.0.1:{agent.port}") as client,
    ):
        yield Testbed(server, agent, client)


async def eventually(condition: Callable[[], bool], within_s: float = 5.0) -> None:
    """Waits for something that other tasks bring about.

    Raises:
        TimeoutError: it did not happen.
    """
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - plain state of other tasks, no event tells
            await asyncio.sleep(0.01)

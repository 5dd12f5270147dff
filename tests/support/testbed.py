"""Both daemons in one event loop, with tiny random-weight models and real grpc.aio between them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloud_server.app import CloudServer
from cloud_server.settings import CloudSettings
from edge_agent.app import EdgeAgent
from edge_agent.settings import EdgeSettings
from scout_core.rpc.client import InferenceClient

CONTEXT = (
    "The lighthouse stands on the northern cape and was built of granite by an engineer. "
    "The lamp was converted to electricity; the beam reaches twenty two miles. "
) * 4
QUESTION = "who built the lighthouse?"


@dataclass(frozen=True, slots=True)
class Testbed:
    """A running pair and a client of the edge."""

    cloud: CloudServer
    edge: EdgeAgent
    client: InferenceClient

    @property
    def edge_address(self) -> str:
        return f"127.0.0.1:{self.edge.port}"

    @property
    def cloud_address(self) -> str:
        return f"127.0.0.1:{self.cloud.port}"


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
async def running_pair(
    model: Path,
    *,
    cloud: dict[str, Any] | None = None,
    edge: dict[str, Any] | None = None,
    through: str | None = None,
) -> AsyncGenerator[Testbed]:
    """Cloud and edge, attached. ``through``: address of a link in front of the cloud."""
    server = CloudServer(cloud_settings(model, **(cloud or {})))
    await server.start()
    try:
        address = through or f"127.0.0.1:{server.port}"
        agent = EdgeAgent(edge_settings(model, address, **(edge or {})))
        await agent.start()
        try:
            await agent.wait_attached(timeout_s=10)
            async with InferenceClient(f"127.0.0.1:{agent.port}") as client:
                yield Testbed(server, agent, client)
        finally:
            await agent.close()
    finally:
        await server.close()

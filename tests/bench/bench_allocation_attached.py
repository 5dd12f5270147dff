"""1,000 agents attached to one cloud server. Run: python -m tests.bench.bench_allocation_attached

Prints one JSON document: from open to share (p50, p99), the server's processor time and memory per
agent, beside the limits of the issue. The server is a process with a tiny random model, this one is
the client; the figures of the client say whether it measured itself.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np

from scout_core.evaluation.allocation_attached import (
    AttachedFleet,
    AttachedPlan,
    AttachedRun,
    ProcessCost,
)
from tests.support.daemon_process import SupervisedDaemon
from tests.support.tiny_models import save_tiny_model

CAPACITY_BYTES_PER_S = 12_500_000
SETTLE_S = 3.0
LIMITS = {"share_ms_p99": 50.0, "cpu_part": 0.6}


async def measure(server: SupervisedDaemon, plan: AttachedPlan) -> dict[str, Any]:
    """Attaches everybody, waits until that is over, and plays."""
    process_id = server.process.pid
    alone = ProcessCost.of(process_id)
    async with AttachedFleet(server.address, plan) as fleet:
        await asyncio.sleep(SETTLE_S)
        before, own_before = ProcessCost.of(process_id), ProcessCost.of(os_process_id())
        begun_s = asyncio.get_running_loop().time()
        run = await fleet.play()
        passed_s = asyncio.get_running_loop().time() - begun_s
        after, own_after = ProcessCost.of(process_id), ProcessCost.of(os_process_id())
    return {
        **_percentiles("share_ms", run.share_s),
        **_percentiles("heartbeat_ms", run.ack_s),
        "cpu_part": (after.cpu_s - before.cpu_s) / passed_s,
        "memory_bytes_per_agent": (before.memory_bytes - alone.memory_bytes) / plan.agents,
        "server_memory_bytes": after.memory_bytes,
        "client_cpu_part": (own_after.cpu_s - own_before.cpu_s) / passed_s,
        "client_late_ms": 1e3 * run.late_s,
        **_counts(run),
    }


def os_process_id() -> int:
    """This process'."""
    return int(Path("/proc/self").readlink().name)


def _percentiles(name: str, seconds: list[float]) -> dict[str, float]:
    values = 1e3 * np.array(seconds)
    return {
        f"{name}_p50": float(np.median(values)),
        f"{name}_p99": float(np.percentile(values, 99)),
        f"{name}_max": float(values.max()),
    }


def _counts(run: AttachedRun) -> dict[str, int]:
    return {"requests": len(run.share_s), "refused": run.refused, "heartbeats": len(run.ack_s)}


@click.command()
@click.option("--agents", default=1_000, show_default=True)
@click.option("--rate", default=20.0, show_default=True, help="Requests a second, all together.")
@click.option("--hold", default=1.0, show_default=True, help="Mean life of a session, seconds.")
@click.option("--seconds", default=20.0, show_default=True)
def main(agents: int, rate: float, hold: float, seconds: float) -> None:
    """Starts the server, attaches the agents and measures."""
    plan = AttachedPlan(agents=agents, requests_per_s=rate, hold_s=hold, seconds=seconds)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = save_tiny_model(folder / "model")
        capacity = json.dumps({plan.group: CAPACITY_BYTES_PER_S})
        flags = (
            *("--model", str(model), "--threads", "1", "--max-requests", "1024"),
            *("--uplink-capacity-bytes-per-s", capacity),
        )
        with SupervisedDaemon("scout-cloud", folder, *flags) as server:
            figures = asyncio.run(measure(server, plan))
    limits = {name: {"limit": limit, "ours": figures[name]} for name, limit in LIMITS.items()}
    holds = all(each["ours"] <= each["limit"] for each in limits.values())
    document = {"agents": agents, "requests_per_s": rate, **figures, "limits": limits}
    sys.stdout.write(json.dumps({**document, "holds": holds}) + "\n")


if __name__ == "__main__":
    main()

"""The images' health check sees a serving daemon, a draining one and an absent one."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scout_core.rpc.channel import RpcServer
from tests.support.programs import run_program

DOCKER = Path(__file__).resolve().parents[2] / "deploy" / "docker"


def _check(target: str, address: str) -> subprocess.CompletedProcess[str]:
    """The command of one image's HEALTHCHECK, asked about ``address`` on this host."""
    stage = (DOCKER / "Dockerfile").read_text().partition(f"FROM base AS {target}\n")[2]
    match = re.search(r"^HEALTHCHECK .*\\\n\s+CMD (\[.*\])$", stage, re.MULTILINE)
    assert match is not None
    python, script, _ = json.loads(match[1])
    assert (python, script) == ("python", "/opt/scout/health.py")
    return run_program([sys.executable, DOCKER / "health.py", address])


@pytest.mark.parametrize("target", ["cloud", "edge"])
async def test_health_check_tells_serving_from_draining_from_absent(target: str) -> None:
    server = RpcServer()
    address = f"127.0.0.1:{server.listen('127.0.0.1:0')}"
    await server.start()
    serving = await asyncio.to_thread(_check, target, address)
    await server.refuse_new_calls()
    draining = await asyncio.to_thread(_check, target, address)
    await server.stop(0)
    absent = await asyncio.to_thread(_check, target, address)
    results = [result.returncode for result in (serving, draining, absent)]
    assert results == [0, 1, 1], serving.stderr

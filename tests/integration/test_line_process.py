"""A child that is spoken to in lines of JSON: what it says, and how it ends."""

from __future__ import annotations

import sys

import pytest

from scout_core.errors import PeerTimeoutError, PeerUnavailableError
from scout_core.testbed.line_process import LineProcess

ECHO = "import sys\nfor line in sys.stdin: print(line, end='', flush=True)\n"
STUBBORN = "import time\nprint('{}', flush=True)\ntime.sleep(600)\n"


def child(program: str) -> LineProcess:
    return LineProcess("echo", [sys.executable, "-c", program])


async def test_documents_go_both_ways_until_the_end() -> None:
    echo = child(ECHO)
    await echo.start()
    document = {"text": "x" * 200_000}
    await echo.write(document)
    assert await echo.read(20.0) == document
    with pytest.raises(PeerTimeoutError, match="echo said nothing"):
        await echo.read(0.01)
    await echo.end()
    with pytest.raises(PeerUnavailableError, match="not running"):
        await echo.read()
    await echo.end()


async def test_a_child_that_has_ended_is_reported_with_its_command() -> None:
    echo = child("pass")
    await echo.start()
    with pytest.raises(PeerUnavailableError, match="-c pass"):
        await echo.read(20.0)
    await echo.end()


@pytest.mark.timeout(60)
async def test_a_child_that_does_not_end_is_killed() -> None:
    stubborn = child(STUBBORN)
    await stubborn.start()
    assert await stubborn.read(20.0) == {}
    await stubborn.end(timeout_s=0.0)

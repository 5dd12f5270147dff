"""A daemon as a child process: started, watched through its log, stopped.

Knows the console scripts by name and their JSON log lines, nothing of their code.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from scout_core.errors import PeerTimeoutError, PeerUnavailableError
from scout_core.rpc.client import InferenceClient

START_TIMEOUT_S: Final = 300.0
STOP_TIMEOUT_S: Final = 15.0
ATTACH_TIMEOUT_S: Final = 60.0
ATTACH_POLL_S: Final = 0.2
REMEMBERED_LINES: Final = 20

Progress = Callable[[str, float], None]


def free_port() -> int:
    """A TCP port on the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def until_attached(client: InferenceClient) -> None:
    """Waits until the edge agent that ``client`` talks to has reached its cloud.

    Raises:
        PeerTimeoutError: it has not within ``ATTACH_TIMEOUT_S``.
    """
    give_up_s = time.monotonic() + ATTACH_TIMEOUT_S
    while time.monotonic() < give_up_s:
        try:
            if (await client.status()).edge.attached:
                return
        except PeerUnavailableError:
            pass  # not listening yet; the next turn asks again
        await asyncio.sleep(ATTACH_POLL_S)
    raise PeerTimeoutError("The edge agent did not reach the cloud server; see its log.")


class DaemonProcess:
    """One of ``scout-edge`` and ``scout-cloud``; use as ``async with``, which waits until ready.

    Raises:
        PeerUnavailableError: it ended early; the message has the end of its log.
        PeerTimeoutError: it is not ready in time.
    """

    def __init__(self, program: str, *flags: str, on_progress: Progress | None = None) -> None:
        self._command = [str(Path(sys.executable).parent / program), "--log-format", "json", *flags]
        self._program = program
        self._on_progress = on_progress
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._lines: deque[str] = deque(maxlen=REMEMBERED_LINES)

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
        )
        reading = self._reading = asyncio.create_task(self._read_log(self._process))
        ready = asyncio.create_task(self._ready.wait())
        try:
            await asyncio.wait(
                {ready, reading}, timeout=START_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED
            )
        except asyncio.CancelledError:
            await self._stop()
            raise
        finally:
            ready.cancel()
        if self._ready.is_set():
            return self
        ended = reading.done()
        await self._stop()
        if ended:
            raise PeerUnavailableError(
                f"{self._program} ended before it was ready:\n" + "\n".join(self._lines)
            )
        raise PeerTimeoutError(f"{self._program} was not ready in {START_TIMEOUT_S:g} s.")

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stop()

    async def _stop(self) -> None:
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        if self._reading is not None:
            await self._reading

    async def _read_log(self, process: asyncio.subprocess.Process) -> None:
        if process.stderr is None:  # pragma: no cover - a pipe was asked for
            return
        while line := await process.stderr.readline():
            text = line.decode(errors="replace").rstrip()
            self._lines.append(text)
            self._note(_as_event(text))

    def _note(self, event: dict[str, Any]) -> None:
        match event.get("event"):
            case "model_loading" if self._on_progress is not None:
                self._on_progress(f"{self._program}: {event['stage']}", float(event["fraction"]))
            case "daemon_ready":
                self._ready.set()
            case _:
                return


def _as_event(line: str) -> dict[str, Any]:
    """A log line as a dictionary; empty for a line that is not JSON (a library's warning)."""
    try:
        event = json.loads(line)
    except json.JSONDecodeError:
        return {}
    return event if isinstance(event, dict) else {}

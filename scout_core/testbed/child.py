"""A handle on an emulator that runs as a child process, for demos and end-to-end tests.

This module owns the conversation with the child (``commands``). It does not know how the command
line is spelt: the caller gives it, with control by standard input and no status reports, e.g.
``["scout", "link", "--upstream", "127.0.0.1:50051", "--child"]``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from scout_core.errors import PeerTimeoutError, PeerUnavailableError, SettingsError

START_TIMEOUT_S = 20.0
REPLY_TIMEOUT_S = 5.0
STOP_TIMEOUT_S = 5.0

JsonObject = Mapping[str, Any]


class LinkProcess:
    """An emulator process; an async context manager that ends it on leaving.

    Raises:
        PeerUnavailableError: it does not start, or has ended.
        PeerTimeoutError: it does not answer.
        SettingsError: it refused a command.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = tuple(command)
        self._process: asyncio.subprocess.Process | None = None
        self._address: tuple[str, int] | None = None
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Self:
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdin=pipe, stdout=pipe
        )
        try:
            ready = await self._read_line(START_TIMEOUT_S)
            self._address = str(ready["host"]), int(ready["port"])
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._end()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port it listens on."""
        if self._address is None:
            raise PeerUnavailableError("The link process is not running: use it in `async with`.")
        return self._address

    async def set_rate(
        self, *, up_mbps: float | None = None, down_mbps: float | None = None
    ) -> None:
        """Fix the rate of a direction, or both, from now on."""
        rates = {"up_mbps": up_mbps, "down_mbps": down_mbps}
        await self._ask({name: mbps for name, mbps in rates.items() if mbps is not None})

    async def outage(self, duration_s: float) -> None:
        """Let nothing through for so long."""
        await self._ask({"outage_s": duration_s})

    async def reset_connections(self) -> None:
        """Send RST on every connection."""
        await self._ask({"reset": True})

    async def statistics(self) -> JsonObject:
        """The fields of ``LinkStatistics``."""
        return (await self._ask({"status": True}))["status"]

    async def _ask(self, command: JsonObject) -> JsonObject:
        process = self._require_process()
        async with self._turn:
            if process.stdin is None:
                raise PeerUnavailableError("The link process has no standard input.")
            try:
                process.stdin.write(json.dumps(command).encode() + b"\n")
                await process.stdin.drain()
            except ConnectionError as error:
                raise PeerUnavailableError("The link process has ended; start it anew.") from error
            reply = await self._read_line(REPLY_TIMEOUT_S)
        if not reply["ok"]:
            raise SettingsError(str(reply["error"]))
        return reply

    async def _read_line(self, timeout_s: float) -> JsonObject:
        process = self._require_process()
        if process.stdout is None:
            raise PeerUnavailableError("The link process has no standard output.")
        try:
            line = await asyncio.wait_for(process.stdout.readline(), timeout_s)
        except TimeoutError as error:
            raise PeerTimeoutError(f"The link process said nothing for {timeout_s:g} s.") from error
        if not line:
            raise PeerUnavailableError(
                f"The link process ended; its command was: {' '.join(self._command)}"
            )
        return json.loads(line)

    def _require_process(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise PeerUnavailableError("The link process is not running: use it in `async with`.")
        return self._process

    async def _end(self) -> None:
        process = self._require_process()
        if process.stdin is not None:
            process.stdin.close()
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
        except TimeoutError:
            process.kill()
            await process.wait()
        self._process = None
        self._address = None

"""A handle on an emulator that runs as a child process, for demos and end-to-end tests.

This module owns the conversation with the child (``commands``). It does not know how the command
line is spelt: the caller gives it, with control by standard input and no status reports, e.g.
``["scout", "link", "--upstream", "127.0.0.1:50051", "--child"]``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from scout_core.errors import PeerUnavailableError, SettingsError
from scout_core.testbed.line_process import JsonObject, LineProcess

START_TIMEOUT_S = 20.0
REPLY_TIMEOUT_S = 5.0


class LinkProcess:
    """An emulator process; an async context manager that ends it on leaving.

    Raises:
        PeerUnavailableError: it does not start, or has ended.
        PeerTimeoutError: it does not answer.
        SettingsError: it refused a command.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._child = LineProcess("link process", command)
        self._address: tuple[str, int] | None = None
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Self:
        await self._child.start()
        try:
            ready = await self._child.read(START_TIMEOUT_S)
            self._address = str(ready["host"]), int(ready["port"])
        except BaseException:
            await self._child.end()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._address = None
        await self._child.end()

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
        async with self._turn:
            await self._child.write(command)
            reply = await self._child.read(REPLY_TIMEOUT_S)
        if not reply["ok"]:
            raise SettingsError(str(reply["error"]))
        return reply

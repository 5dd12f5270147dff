"""A handle on the receiving process of the transport study.

This module owns the child's life: the ports it announces, and its end with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import sys
from types import TracebackType
from typing import Final, Self

from scout_core.errors import PeerTimeoutError, PeerUnavailableError
from scout_core.evaluation.transport_sink import SinkPorts

START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 5.0


class SinkProcess:
    """A child with the three receivers; an async context manager.

    Raises:
        PeerUnavailableError, PeerTimeoutError: it does not start.
    """

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._ports: SinkPorts | None = None

    @property
    def ports(self) -> SinkPorts:
        if self._ports is None:
            raise PeerUnavailableError("The sink is not running: use it in `async with`.")
        return self._ports

    async def __aenter__(self) -> Self:
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "scout_core.evaluation.transport_sink", stdin=pipe, stdout=pipe
        )
        try:
            self._ports = SinkPorts(**json.loads(await self._first_line(self._process)))
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

    async def _first_line(self, process: asyncio.subprocess.Process) -> bytes:
        if process.stdout is None:
            raise PeerUnavailableError("The sink process has no standard output.")
        try:
            line = await asyncio.wait_for(process.stdout.readline(), START_TIMEOUT_S)
        except TimeoutError as error:
            raise PeerTimeoutError(
                f"The sink process said nothing for {START_TIMEOUT_S:g} s."
            ) from error
        if not line:
            raise PeerUnavailableError("The sink process ended at once; see standard error.")
        return line

    async def _end(self) -> None:
        process = self._process
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
        except TimeoutError:
            process.kill()
            await process.wait()
        self._process = self._ports = None

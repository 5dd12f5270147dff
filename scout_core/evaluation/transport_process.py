"""A handle on the receiving process of the transport study.

This module owns how it is started, and the ports it announces.
"""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Final, Self

from scout_core.errors import PeerUnavailableError
from scout_core.evaluation.transport_sink import SinkPorts
from scout_core.testbed.line_process import LineProcess

START_TIMEOUT_S: Final = 60.0
SINK: Final = (sys.executable, "-m", "scout_core.evaluation.transport_sink")


class SinkProcess:
    """A child with the three receivers; an async context manager.

    Raises:
        PeerUnavailableError, PeerTimeoutError: it does not start.
    """

    def __init__(self) -> None:
        self._child = LineProcess("sink process", SINK)
        self._ports: SinkPorts | None = None

    @property
    def ports(self) -> SinkPorts:
        if self._ports is None:
            raise PeerUnavailableError("The sink is not running: use it in `async with`.")
        return self._ports

    async def __aenter__(self) -> Self:
        await self._child.start()
        try:
            self._ports = SinkPorts(**await self._child.read(START_TIMEOUT_S))
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
        self._ports = None
        await self._child.end()

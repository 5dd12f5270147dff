"""A child process that is spoken to in lines of JSON: one document each, both ways.

Owns the child's life and its pipes. It does not know what the documents say.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from scout_core.errors import PeerTimeoutError, PeerUnavailableError

STOP_TIMEOUT_S: Final = 5.0
LONGEST_LINE_BYTES: Final = 1 << 20

JsonObject = Mapping[str, Any]


class LineProcess:
    """One child, which is to end with its standard input.

    Args:
        name: what errors call it.
        command: the program and its arguments.
    """

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self._name = name
        self._command = tuple(command)
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Begins it; its standard error stays ours."""
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdin=pipe, stdout=pipe, limit=LONGEST_LINE_BYTES
        )

    async def write(self, document: JsonObject) -> None:
        """Tells it something.

        Raises:
            PeerUnavailableError: it is not running.
        """
        stdin = self._running().stdin
        if stdin is None:
            raise PeerUnavailableError(f"The {self._name} has no standard input.")
        try:
            stdin.write(json.dumps(document).encode() + b"\n")
            await stdin.drain()
        except ConnectionError as error:
            raise PeerUnavailableError(f"The {self._name} has ended; start it anew.") from error

    async def read(self, timeout_s: float | None = None) -> JsonObject:
        """The next thing it says.

        Raises:
            PeerUnavailableError: it is not running, or ended.
            PeerTimeoutError: it said nothing for so long.
        """
        stdout = self._running().stdout
        if stdout is None:
            raise PeerUnavailableError(f"The {self._name} has no standard output.")
        try:
            line = await asyncio.wait_for(stdout.readline(), timeout_s)
        except TimeoutError as error:
            raise PeerTimeoutError(f"The {self._name} said nothing for {timeout_s:g} s.") from error
        if not line:
            raise PeerUnavailableError(
                f"The {self._name} ended; see standard error. Its command was: "
                f"{' '.join(self._command)}"
            )
        return json.loads(line)

    async def end(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Ends it by the end of its standard input, or by force if it takes longer than that."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), timeout_s)
        except TimeoutError:
            if process.returncode is None:
                process.kill()
            await process.wait()

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise PeerUnavailableError(f"The {self._name} is not running: use it in `async with`.")
        return self._process

"""An emulator as a process of its own: obeys control lines, reports, and ends on a signal.

This module owns the life of the process. The lines themselves are ``commands``'s, the link is
``proxy``'s; where lines come from and go to is the caller's.
"""

from __future__ import annotations

import asyncio
import signal
import stat
from collections.abc import Callable
from dataclasses import dataclass
from os import fstat
from time import monotonic
from typing import IO

from scout_core.errors import SettingsError
from scout_core.testbed.commands import (
    MAX_LINE_BYTES,
    apply_command,
    parse_command,
    ready_line,
    refusal_line,
    reply_line,
    status_line,
)
from scout_core.testbed.proxy import LinkEmulator


@dataclass(frozen=True, slots=True)
class Console:
    """What a standalone emulator talks to.

    Args:
        commands: where control lines come from, if it is a pipe or socket; anything else (a
            terminal, /dev/null, a file) is left alone and the link runs as configured.
        reply: takes the ready line and the replies.
        report: takes the periodic status.
        report_every_s: 0 for no reports.
        ends_with_commands: whether the end of ``commands`` ends the process, as a child of a
            program that may die should.
    """

    commands: IO[bytes]
    reply: Callable[[str], None]
    report: Callable[[str], None]
    report_every_s: float = 0.0
    ends_with_commands: bool = False


async def run_standalone(link: LinkEmulator, console: Console) -> None:
    """Run a link until SIGINT, SIGTERM, a stop command, or the end of commands if so asked."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        async with link, asyncio.TaskGroup() as group:
            console.reply(ready_line(link))
            tasks = [
                group.create_task(_obey(link, console, stop)),
                group.create_task(_report(link, console)),
            ]
            await stop.wait()
            for task in tasks:
                task.cancel()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _obey(link: LinkEmulator, console: Console, stop: asyncio.Event) -> None:
    kind = fstat(console.commands.fileno()).st_mode
    if not (stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind)):
        return
    reader = asyncio.StreamReader(limit=MAX_LINE_BYTES)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), console.commands
    )
    try:
        while not stop.is_set():
            try:
                line = await reader.readline()
            except ValueError:
                # The reader has dropped the overlong line.
                error = SettingsError(f"Link command: a line has at most {MAX_LINE_BYTES} bytes.")
                console.reply(refusal_line(error))
                continue
            if not line:
                break
            _answer(line, link, console, stop)
    finally:
        transport.close()
    if console.ends_with_commands:
        stop.set()


def _answer(line: bytes, link: LinkEmulator, console: Console, stop: asyncio.Event) -> None:
    try:
        command = parse_command(line)
    except SettingsError as error:
        console.reply(refusal_line(error))
        return
    apply_command(command, link)
    console.reply(reply_line(link))
    if command.stop:
        stop.set()


async def _report(link: LinkEmulator, console: Console) -> None:
    if console.report_every_s <= 0:
        return
    started = monotonic()
    while True:
        await asyncio.sleep(console.report_every_s)
        console.report(status_line(link, monotonic() - started))

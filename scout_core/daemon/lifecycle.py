"""Starting and stopping a daemon process: signals, watchdog, one bounded drain.

SIGTERM and SIGINT begin the drain; a second signal ends it at once.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from scout_core.daemon.systemd import SystemdNotifier

log = structlog.get_logger("scout.daemon")


class Daemon(Protocol):
    """What a daemon's application object offers its process."""

    async def start(self) -> str:
        """Begins serving; returns one line for people: who, where, with which model."""
        ...

    async def drain(self) -> None:
        """Refuses new requests and waits, bounded, for those in flight."""
        ...

    async def close(self) -> None:
        """Releases everything; nothing may be in flight any more."""
        ...


async def run_daemon(daemon: Daemon, notifier: SystemdNotifier | None = None) -> None:
    """Runs a daemon until a signal asks it to stop."""
    systemd = notifier or SystemdNotifier.from_environment()
    loop = asyncio.get_running_loop()
    stop_requested, stop_now = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (stop_now if stop_requested.is_set() else stop_requested).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    watchdog = asyncio.create_task(_feed_watchdog(systemd))
    try:
        status = await daemon.start()
        systemd.ready(status)
        log.info("daemon_ready", status=status)
        await stop_requested.wait()
        systemd.stopping("draining")
        log.info("daemon_draining")
        await _until(daemon.drain, stop_now)
    finally:
        await daemon.close()
        watchdog.cancel()
        log.info("daemon_stopped")


async def _until(work: Callable[[], Awaitable[None]], interrupted: asyncio.Event) -> None:
    """Runs ``work``, cut short by the event."""
    working = asyncio.ensure_future(work())
    waiting = asyncio.ensure_future(interrupted.wait())
    try:
        await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        for task in (working, waiting):
            task.cancel()
        await asyncio.gather(working, waiting, return_exceptions=True)


async def _feed_watchdog(systemd: SystemdNotifier) -> None:
    """Answers from the event loop itself: a hung loop stops the answers (STYLE, trap 12)."""
    if systemd.watchdog_s <= 0:
        return
    while True:
        systemd.alive()
        await asyncio.sleep(systemd.watchdog_s / 3)

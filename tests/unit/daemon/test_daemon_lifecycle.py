"""A signal begins the drain, a second one ends it; systemd hears of it all."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from scout_core.daemon.lifecycle import run_daemon
from scout_core.daemon.systemd import SystemdNotifier
from scout_core.errors import SettingsError

QUIET = SystemdNotifier(None)


@dataclass
class RecordedDaemon:
    """A daemon that notes what is asked of it; its drain ends when ``drained`` is set."""

    calls: list[str] = field(default_factory=list[str])
    started: asyncio.Event = field(default_factory=asyncio.Event)
    draining: asyncio.Event = field(default_factory=asyncio.Event)
    drained: asyncio.Event = field(default_factory=asyncio.Event)
    start_error: Exception | None = None

    async def start(self) -> str:
        self.calls.append("start")
        if self.start_error is not None:
            raise self.start_error
        self.started.set()
        return "here"

    async def drain(self) -> None:
        self.calls.append("drain")
        self.draining.set()
        await self.drained.wait()
        self.calls.append("drained")

    async def close(self) -> None:
        self.calls.append("close")


def interrupt(number: signal.Signals = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_drains_and_closes(number: signal.Signals) -> None:
    daemon = RecordedDaemon()
    running = asyncio.create_task(run_daemon(daemon, QUIET))
    await daemon.started.wait()
    assert daemon.calls == ["start"]
    interrupt(number)
    await daemon.draining.wait()
    daemon.drained.set()
    await running
    assert daemon.calls == ["start", "drain", "drained", "close"]


async def test_second_signal_ends_the_drain_at_once() -> None:
    daemon = RecordedDaemon()
    running = asyncio.create_task(run_daemon(daemon, QUIET))
    await daemon.started.wait()
    interrupt()
    await daemon.draining.wait()
    interrupt()
    await running
    assert daemon.calls == ["start", "drain", "close"]


async def test_daemon_that_cannot_start_is_closed_and_says_why() -> None:
    daemon = RecordedDaemon(start_error=SettingsError("No model."))
    with pytest.raises(SettingsError, match="No model"):
        await run_daemon(daemon, QUIET)
    assert daemon.calls == ["start", "close"]


@pytest.fixture
def datagrams(tmp_path: Path) -> Iterator[tuple[str, Callable[[], list[str]]]]:
    """A socket as systemd's, and what has arrived on it so far."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(path)
        receiver.setblocking(False)

        def arrived() -> list[str]:
            messages: list[str] = []
            while True:
                try:
                    messages.append(receiver.recv(4_096).decode())
                except BlockingIOError:
                    return messages

        yield path, arrived


async def test_systemd_hears_ready_and_stopping(
    datagrams: tuple[str, Callable[[], list[str]]],
) -> None:
    path, arrived = datagrams
    daemon = RecordedDaemon()
    daemon.drained.set()
    running = asyncio.create_task(run_daemon(daemon, SystemdNotifier(path)))
    await daemon.started.wait()
    interrupt()
    await running
    assert arrived() == ["READY=1\nSTATUS=here", "STOPPING=1\nSTATUS=draining"]


async def test_watchdog_is_fed_from_the_loop(
    datagrams: tuple[str, Callable[[], list[str]]],
) -> None:
    path, arrived = datagrams
    daemon = RecordedDaemon()
    daemon.drained.set()
    running = asyncio.create_task(run_daemon(daemon, SystemdNotifier(path, watchdog_s=0.003)))
    await daemon.started.wait()
    messages: list[str] = []
    async with asyncio.timeout(10):
        while messages.count("WATCHDOG=1") < 3:
            await asyncio.sleep(0)
            messages += arrived()
    interrupt()
    await running


def test_notifier_reads_what_systemd_sets(
    monkeypatch: pytest.MonkeyPatch, datagrams: tuple[str, Callable[[], list[str]]]
) -> None:
    path, arrived = datagrams
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    notifier = SystemdNotifier.from_environment()
    assert notifier.watchdog_s == 30.0
    notifier.alive()
    assert arrived() == ["WATCHDOG=1"]


def test_abstract_socket_is_understood() -> None:
    name = f"scout-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0{name}")
        SystemdNotifier(f"@{name}").ready("x")
        assert receiver.recv(100) == b"READY=1\nSTATUS=x"


def test_without_systemd_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.setenv("WATCHDOG_USEC", "soon")
    notifier = SystemdNotifier.from_environment()
    assert notifier.watchdog_s == 0.0
    notifier.ready("x")

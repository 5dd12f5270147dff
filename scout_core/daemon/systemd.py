"""Readiness and watchdog messages to systemd (sd_notify(3)): one datagram each.

Outside systemd (no NOTIFY_SOCKET) every call does nothing.
"""

from __future__ import annotations

import os
import socket

MICROSECONDS = 1_000_000


class SystemdNotifier:
    """Speaks the sd_notify protocol over the socket that systemd names.

    Args:
        address: value of NOTIFY_SOCKET; a leading ``@`` means the abstract namespace.
        watchdog_s: interval within which systemd expects WATCHDOG=1; 0: no watchdog.
    """

    def __init__(self, address: str | None, watchdog_s: float = 0.0) -> None:
        self._address = address
        self.watchdog_s = watchdog_s

    @classmethod
    def from_environment(cls) -> SystemdNotifier:
        watchdog_us = os.environ.get("WATCHDOG_USEC", "0")
        watchdog_s = int(watchdog_us) / MICROSECONDS if watchdog_us.isdigit() else 0.0
        return cls(os.environ.get("NOTIFY_SOCKET"), watchdog_s)

    def ready(self, status: str) -> None:
        self._send(f"READY=1\nSTATUS={status}")

    def stopping(self, status: str) -> None:
        self._send(f"STOPPING=1\nSTATUS={status}")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        address = self._address
        if address.startswith("@"):
            address = "\0" + address[1:]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notifier:
            notifier.setblocking(False)
            notifier.sendto(message.encode(), address)

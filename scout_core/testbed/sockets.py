"""The emulator's TCP sockets: made, resolved, half-closed, and closed with or without a reset.

This module owns the socket options. What flows through the sockets is ``lane``'s, which of them
belong together ``proxy``'s.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress

from scout_core.errors import SettingsError

LISTEN_BACKLOG = 128
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER on, 0 s: close() sends RST and drops what is unsent (socket(7))."""

SocketAddress = tuple[socket.AddressFamily, tuple[str, int]]


async def resolve(address: tuple[str, int]) -> list[SocketAddress]:
    """The addresses of a host and port, at least one.

    Raises:
        SettingsError: it does not resolve.
    """
    host, port = address
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise SettingsError(f"Cannot resolve {host}:{port} ({error.strerror}).") from error
    # IPv4 first: gRPC servers on "0.0.0.0" are the common case.
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    return [(entry[0], (str(entry[4][0]), int(entry[4][1]))) for entry in found]


def open_listener(
    family: socket.AddressFamily, address: tuple[str, int], buffer_bytes: int
) -> socket.socket:
    """A listening socket.

    Raises:
        SettingsError: the address is in use, or not ours.
    """
    listener = make_socket(family, buffer_bytes)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise SettingsError(f"Cannot listen on {address[0]}:{address[1]}: {error}.") from error
    listener.listen(LISTEN_BACKLOG)
    return listener


def make_socket(family: socket.AddressFamily, buffer_bytes: int) -> socket.socket:
    """A non-blocking TCP socket with buffers of its own size, which accepted sockets inherit."""
    made = socket.socket(family, socket.SOCK_STREAM)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        made.setsockopt(socket.SOL_SOCKET, option, buffer_bytes)
    tune(made)
    return made


def tune(made: socket.socket) -> None:
    """Make a socket non-blocking and let small writes go at once."""
    made.setblocking(False)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def half_close(side: socket.socket) -> None:
    """Send FIN: no more bytes this way."""
    # A receiver that reset the connection meanwhile cannot be closed any further (ENOTCONN); its
    # reset is noticed by the opposite direction's read.
    with suppress(OSError):
        side.shutdown(socket.SHUT_WR)


def close(side: socket.socket, *, reset: bool) -> None:
    """Close a socket: with ``reset`` by RST, dropping what is unsent, else in order."""
    if reset:
        side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    side.close()

"""How exactly the emulator keeps its set rate and round trip on this machine.

This module owns the measurement: blocking sockets in threads at both ends, so that neither end
shares the emulator's event loop, and arrival times at the receiver. It does not own the emulator,
which may run in this process or in its own.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import Enum
from time import monotonic
from typing import Any, Protocol, assert_never

from scout_core.errors import PeerUnavailableError
from scout_core.testbed.link import Direction

WARM_UP_S = 0.3
"""Not measured: the queue fills, and TCP's own buffers open."""
SEND_BYTES = 64 * 1024
RECEIVE_BYTES = 256 * 1024
POLL_S = 0.2
CONNECT_TIMEOUT_S = 10.0
RATES_MBPS = (0.1, 1.0, 10.0, 100.0, 1000.0)
RTT_S = 0.020
ROUND_TRIPS = 50
LIMIT_PERCENT = 2.0
"""Errors beyond this fail the self-test (issue "3 of 5")."""


class RunningLink(Protocol):
    """An emulator, wherever it runs."""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port it listens on."""
        ...


class LinkOpener(Protocol):
    """Starts an emulator of a constant rate both ways in front of ``upstream``."""

    def __call__(
        self, rate_mbps: float, rtt_s: float, upstream: tuple[str, int]
    ) -> AbstractAsyncContextManager[RunningLink]: ...


class Placement(Enum):
    """Where the emulator runs."""

    IN_PROCESS = "in_process"
    OWN_PROCESS = "own_process"


@dataclass(frozen=True, slots=True)
class RateRow:
    """One measured rate."""

    placement: Placement
    direction: Direction
    rate_mbps: float
    measured_mbps: float
    seconds: float

    @property
    def error_percent(self) -> float:
        """Signed deviation from the set rate."""
        return (self.measured_mbps / self.rate_mbps - 1) * 100


@dataclass(frozen=True, slots=True)
class RoundTripRow:
    """Measured round trips of single bytes on an idle link."""

    placement: Placement
    set_ms: float
    p50_ms: float
    p95_ms: float


@dataclass(frozen=True, slots=True)
class SelfTest:
    """All measurements of one run."""

    rates: tuple[RateRow, ...]
    round_trips: tuple[RoundTripRow, ...]

    @property
    def worst_error_percent(self) -> float:
        """The largest deviation from a set rate, unsigned."""
        return max(abs(row.error_percent) for row in self.rates)

    def document(self) -> dict[str, Any]:
        """What ``scout link --self-test --json`` prints."""
        return {
            "rows": [
                {
                    "placement": row.placement.value,
                    "direction": row.direction.value,
                    "rate_mbps": row.rate_mbps,
                    "measured_mbps": row.measured_mbps,
                    "error_percent": row.error_percent,
                    "seconds": row.seconds,
                }
                for row in self.rates
            ],
            "round_trips": [
                {
                    "placement": row.placement.value,
                    "set_ms": row.set_ms,
                    "p50_ms": row.p50_ms,
                    "p95_ms": row.p95_ms,
                }
                for row in self.round_trips
            ],
            "worst_error_percent": self.worst_error_percent,
            "limit_percent": LIMIT_PERCENT,
        }


@dataclass(slots=True)
class _Meter:
    """When bytes arrived; written by one thread, read after it ended."""

    stop: threading.Event = field(default_factory=threading.Event)
    arrivals: list[tuple[float, int]] = field(default_factory=list[tuple[float, int]])

    def mbps(self, from_s: float) -> float:
        """The mean rate between the first and the last arrival after ``from_s``."""
        late = [arrival for arrival in self.arrivals if arrival[0] >= from_s]
        if len(late) < 2:
            raise PeerUnavailableError("Too few bytes arrived to measure a rate; take more time.")
        span_s = late[-1][0] - late[0][0]
        return sum(size for _, size in late[1:]) * 8 / span_s / 1e6


async def measure_rate(
    opener: LinkOpener,
    placement: Placement,
    direction: Direction,
    rate_mbps: float,
    seconds: float,
) -> RateRow:
    """Saturate one direction of a fresh link and measure what arrives."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        async with opener(rate_mbps, 0.0, server.getsockname()[:2]) as link:
            client, accepted = await asyncio.to_thread(_connect, link.address, server)
            source, sink = _roles(direction, client, accepted)
            meter = _Meter()
            threads = [
                threading.Thread(target=_send, args=(source, meter)),
                threading.Thread(target=_receive, args=(sink, meter)),
            ]
            started = monotonic()
            for thread in threads:
                thread.start()
            await asyncio.sleep(WARM_UP_S + seconds)
            meter.stop.set()
            for thread in threads:
                await asyncio.to_thread(thread.join)
            client.close()
            accepted.close()
    measured_mbps = meter.mbps(started + WARM_UP_S)
    return RateRow(placement, direction, rate_mbps, measured_mbps, seconds)


async def measure_round_trip(
    opener: LinkOpener, placement: Placement, rtt_s: float, count: int
) -> RoundTripRow:
    """Bounce single bytes over an idle 100 Mbit/s link, ``count`` times after the first."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        async with opener(100.0, rtt_s, server.getsockname()[:2]) as link:
            client, accepted = await asyncio.to_thread(_connect, link.address, server)
            times = await asyncio.to_thread(_bounce, client, accepted, count + 1)
            client.close()
            accepted.close()
    times = sorted(times[1:])
    p50, p95 = times[len(times) // 2], times[int(len(times) * 0.95)]
    return RoundTripRow(placement, rtt_s * 1e3, p50 * 1e3, p95 * 1e3)


async def self_test(
    openers: Mapping[Placement, LinkOpener],
    rates_mbps: Sequence[float],
    seconds: float,
    progress: Callable[[str], None],
) -> SelfTest:
    """Every placement, direction and rate for ``seconds`` each, then the round trips."""
    rates: list[RateRow] = []
    round_trips: list[RoundTripRow] = []
    for placement, opener in openers.items():
        for direction in Direction:
            for rate_mbps in rates_mbps:
                progress(f"{placement.value} {direction.value} {rate_mbps:g} Mbit/s")
                row = await measure_rate(opener, placement, direction, rate_mbps, seconds)
                rates.append(row)
        progress(f"{placement.value} round trip")
        round_trips.append(await measure_round_trip(opener, placement, RTT_S, ROUND_TRIPS))
    return SelfTest(tuple(rates), tuple(round_trips))


def _connect(
    address: tuple[str, int], server: socket.socket
) -> tuple[socket.socket, socket.socket]:
    client = socket.create_connection(address, timeout=CONNECT_TIMEOUT_S)
    server.settimeout(CONNECT_TIMEOUT_S)
    accepted, _ = server.accept()
    for side in (client, accepted):
        side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        side.settimeout(POLL_S)
    return client, accepted


def _roles(
    direction: Direction, client: socket.socket, accepted: socket.socket
) -> tuple[socket.socket, socket.socket]:
    match direction:
        case Direction.UP:
            return client, accepted
        case Direction.DOWN:
            return accepted, client
        case _:
            assert_never(direction)


def _send(source: socket.socket, meter: _Meter) -> None:
    data = bytes(SEND_BYTES)
    while not meter.stop.is_set():
        try:
            source.send(data)
        except TimeoutError:
            continue


def _receive(sink: socket.socket, meter: _Meter) -> None:
    while not meter.stop.is_set():
        try:
            size_bytes = len(sink.recv(RECEIVE_BYTES))
        except TimeoutError:
            continue
        meter.arrivals.append((monotonic(), size_bytes))


def _bounce(client: socket.socket, accepted: socket.socket, count: int) -> list[float]:
    times: list[float] = []
    for side in (client, accepted):
        side.settimeout(CONNECT_TIMEOUT_S)
    for _ in range(count):
        started = monotonic()
        client.sendall(b"x")
        accepted.sendall(accepted.recv(1))
        client.recv(1)
        times.append(monotonic() - started)
    return times

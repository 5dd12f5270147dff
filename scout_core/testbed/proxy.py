"""The link emulator: a TCP proxy whose two directions behave like a slow, distant link.

This module owns connections: it accepts, dials the upstream, joins the two sockets by a flow in
each direction, passes on half-closes and resets, and offers live control and statistics. Bytes
move in ``lane``; rate, queue and delay are ``bottleneck``'s. All connections share one bottleneck a
direction, as the agents behind one access link do.

What it is not: TCP's own reaction to the link (slow start, loss, retransmission) does not happen,
because each side of the proxy is a local connection; a full queue blocks the sender instead.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from dataclasses import dataclass
from itertools import count
from time import monotonic
from types import TracebackType
from typing import Self, assert_never

from scout_core.errors import PeerUnavailableError
from scout_core.testbed.bottleneck import Bottleneck
from scout_core.testbed.lane import Lane, Pipe
from scout_core.testbed.link import Direction, LinkConfig
from scout_core.testbed.queueing import Ending, FlowId
from scout_core.testbed.schedule import BITS_PER_BYTE, BITS_PER_MEGABIT, RateSchedule
from scout_core.testbed.sockets import (
    SocketAddress,
    close,
    half_close,
    make_socket,
    open_listener,
    resolve,
    tune,
)

SOCKET_BUFFER_BYTES = 64 * 1024
"""Kernel buffers of the emulator's own sockets: small, so that a backlog lies in the emulated
queue, where it is counted, and a blocked sender notices soon."""
SOCKET_BUFFER_S = 0.004
"""Fast links get buffers for so long at the highest rate they are set up with: a few wake-ups."""
MAX_SOCKET_BUFFER_BYTES = 4 * 1024 * 1024
DIAL_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class DirectionStatistics:
    """Counters since the start, and the present state, of one direction."""

    accepted_bytes: int
    delivered_bytes: int
    queue_bytes: int
    flying_bytes: int
    rate_mbps: float


@dataclass(frozen=True, slots=True)
class LinkStatistics:
    """What the emulator did so far."""

    up: DirectionStatistics
    down: DirectionStatistics
    open_connections: int
    total_connections: int
    resets: int


class LinkEmulator:
    """An emulated link in front of one upstream address; an async context manager.

    Args:
        config: the link.
        upstream: host and port to dial for each accepted connection.
        listen: host and port to listen on; port 0 picks a free one (see ``address``).

    Raises:
        SettingsError: on entry, an address that does not resolve or is in use.
    """

    def __init__(
        self,
        config: LinkConfig,
        upstream: tuple[str, int],
        listen: tuple[str, int] = ("127.0.0.1", 0),
    ) -> None:
        self._config = config
        fastest_mbps = max(*config.up.rates_mbps, *config.down.rates_mbps)
        fast_bytes = int(fastest_mbps * BITS_PER_MEGABIT / BITS_PER_BYTE * SOCKET_BUFFER_S)
        self._buffer_bytes = min(max(SOCKET_BUFFER_BYTES, fast_bytes), MAX_SOCKET_BUFFER_BYTES)
        self._upstream = upstream
        self._listen = listen
        self._listener: socket.socket | None = None
        self._lanes: dict[Direction, Lane] = {}
        self._upstream_addresses: deque[SocketAddress] = deque()
        self._connections: dict[FlowId, _Connection] = {}
        self._next_flow = count()
        self._total_connections = 0
        self._resets = 0

    async def __aenter__(self) -> Self:
        self._upstream_addresses.extend(await resolve(self._upstream))
        family, address = (await resolve(self._listen))[0]
        self._listener = open_listener(family, address, self._buffer_bytes)
        now = monotonic()
        for direction in Direction:
            bottleneck = Bottleneck(self._config.direction(direction), now)
            self._lanes[direction] = Lane(bottleneck, _Ends(self, direction))
        asyncio.get_running_loop().add_reader(self._listener.fileno(), self._accept)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        listener = self._require_listener()
        asyncio.get_running_loop().remove_reader(listener.fileno())
        listener.close()
        self._listener = None
        for connection in tuple(self._connections.values()):
            self._discard(connection, reset=True)
        for lane in self._lanes.values():
            lane.shut()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port it listens on."""
        host, port = self._require_listener().getsockname()[:2]
        return str(host), int(port)

    def set_rate(self, *, up_mbps: float | None = None, down_mbps: float | None = None) -> None:
        """Fix the rate of a direction, or both, from now on; bytes queued feel it at once."""
        for direction, mbps in ((Direction.UP, up_mbps), (Direction.DOWN, down_mbps)):
            if mbps is not None:
                self.set_schedule(direction, RateSchedule.constant(mbps))

    def set_schedule(self, direction: Direction, schedule: RateSchedule) -> None:
        """Let a direction follow ``schedule``, whose time 0 is now."""
        lane = self._lanes[direction]
        lane.bottleneck.set_schedule(schedule, monotonic())
        lane.pump()

    def outage(self, duration_s: float) -> None:
        """Let nothing through either bottleneck for so long; connections stay open."""
        for lane in self._lanes.values():
            lane.bottleneck.start_outage(duration_s, monotonic())
            lane.pump()

    def reset_connections(self) -> int:
        """Send RST on both sides of every connection at once; how many there were."""
        connections = tuple(self._connections.values())
        for connection in connections:
            self._discard(connection, reset=True)
        self._resets += len(connections)
        return len(connections)

    def statistics(self) -> LinkStatistics:
        """Counters and present state."""
        return LinkStatistics(
            up=self._direction_statistics(Direction.UP),
            down=self._direction_statistics(Direction.DOWN),
            open_connections=len(self._connections),
            total_connections=self._total_connections,
            resets=self._resets,
        )

    def _direction_statistics(self, direction: Direction) -> DirectionStatistics:
        lane = self._lanes[direction]
        return DirectionStatistics(
            accepted_bytes=lane.accepted_bytes,
            delivered_bytes=lane.delivered_bytes,
            queue_bytes=lane.bottleneck.backlog_bytes,
            flying_bytes=lane.bottleneck.flying_bytes,
            rate_mbps=lane.bottleneck.rate_mbps(monotonic()),
        )

    def _require_listener(self) -> socket.socket:
        if self._listener is None:
            raise PeerUnavailableError("The link emulator is not running: use it in `async with`.")
        return self._listener

    def _accept(self) -> None:
        try:
            client, _ = self._require_listener().accept()
        except (BlockingIOError, ConnectionError):
            return
        family, address = self._upstream_addresses[0]
        upstream = make_socket(family, self._buffer_bytes)
        tune(client)
        flow = FlowId(next(self._next_flow))
        connection = _Connection(flow, client, upstream)
        self._connections[flow] = connection
        self._total_connections += 1
        loop = asyncio.get_running_loop()
        upstream.connect_ex(address)
        loop.add_writer(upstream.fileno(), self._on_dialled, connection)
        connection.timer = loop.call_later(DIAL_TIMEOUT_S, self._discard, connection)

    def _on_dialled(self, connection: _Connection) -> None:
        """The upstream answered: join after one more round trip, the handshake over the link."""
        loop = asyncio.get_running_loop()
        loop.remove_writer(connection.upstream.fileno())
        connection.is_dialling = False
        if connection.timer is not None:
            connection.timer.cancel()
        if connection.upstream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._upstream_addresses.rotate(-1)
            self._discard(connection, reset=True)
            return
        connection.timer = loop.call_later(self._config.rtt_s, self._join, connection)

    def _join(self, connection: _Connection) -> None:
        connection.timer = None
        flow, client, upstream = connection.flow, connection.client, connection.upstream
        connection.open_directions.update(Direction)
        self._lanes[Direction.UP].open(Pipe(flow, client, upstream))
        if Direction.DOWN in connection.open_directions:
            self._lanes[Direction.DOWN].open(Pipe(flow, upstream, client))

    def on_ended(self, flow: FlowId, direction: Direction, ending: Ending) -> None:
        """A direction has delivered everything: pass its ending on (called by the lanes)."""
        connection = self._connections[flow]
        match ending:
            case Ending.RESET:
                self._resets += 1
                self._discard(connection, reset=True)
            case Ending.CLOSE:
                connection.open_directions.discard(direction)
                half_close(connection.sink(direction))
                if not connection.open_directions:
                    self._discard(connection, reset=False)
            case _:
                assert_never(ending)

    def on_sink_broken(self, flow: FlowId, direction: Direction) -> None:
        """A receiver is gone: its reset travels back over the other direction."""
        connection = self._connections[flow]
        connection.open_directions.discard(direction)
        opposite = Direction.DOWN if direction is Direction.UP else Direction.UP
        if not self._lanes[opposite].fail(flow):
            self._resets += 1
            self._discard(connection, reset=True)

    def _discard(self, connection: _Connection, *, reset: bool = True) -> None:
        """Forget a connection and close its sockets, orderly or by RST."""
        self._connections.pop(connection.flow, None)
        connection.open_directions.clear()
        if connection.timer is not None:
            connection.timer.cancel()
        if connection.is_dialling:
            asyncio.get_running_loop().remove_writer(connection.upstream.fileno())
        for lane in self._lanes.values():
            lane.close(connection.flow)
        for side in (connection.client, connection.upstream):
            close(side, reset=reset)


class _Connection:
    """The two sockets of one accepted connection."""

    def __init__(self, flow: FlowId, client: socket.socket, upstream: socket.socket) -> None:
        self.flow = flow
        self.client = client
        self.upstream = upstream
        self.is_dialling = True
        self.timer: asyncio.TimerHandle | None = None
        self.open_directions: set[Direction] = set()

    def sink(self, direction: Direction) -> socket.socket:
        """Where the bytes of a direction leave the emulator."""
        match direction:
            case Direction.UP:
                return self.upstream
            case Direction.DOWN:
                return self.client
            case _:
                assert_never(direction)


@dataclass(frozen=True, slots=True)
class _Ends:
    """Tells the emulator which direction a lane's news is about."""

    emulator: LinkEmulator
    direction: Direction

    def on_ended(self, flow: FlowId, ending: Ending) -> None:
        self.emulator.on_ended(flow, self.direction, ending)

    def on_sink_broken(self, flow: FlowId) -> None:
        self.emulator.on_sink_broken(flow, self.direction)

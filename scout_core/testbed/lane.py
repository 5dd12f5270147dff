"""One direction of the emulator: moves bytes from sockets through a bottleneck to sockets.

This module owns the I/O of a direction: when to read (only while the emulated queue has room, so
that pressure reaches the sender), when to write (when the model says the bytes have arrived), and
the one timer between. What happens in between is
``bottleneck``'s; which sockets belong together and
what a broken one means for its peer is ``proxy``'s. It runs on the event loop by callbacks, with
no task of its own, and never blocks.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol

from scout_core.testbed.bottleneck import Bottleneck
from scout_core.testbed.link import SEGMENT_BYTES
from scout_core.testbed.queueing import Ending, FlowId

READ_BYTES = 128 * 1024
"""Most bytes of one read: 1 ms at 1 Gbit/s."""
OUTBOX_BYTES = 256 * 1024
"""A flow whose receiver lets so many arrived bytes lie is not read from: its window is full."""
TICK_S = 0.001
"""Least time between two timer wake-ups: the resolution of the event loop's poll."""
EARLY_S = TICK_S / 2
"""Bytes may land so much before their time: rounding to the nearest tick, not up, has no bias."""
CATCH_UP_S = 0.010
"""After a full queue the senders' bytes wait in kernel buffers, and an emulator that is late finds
the queue empty through its own fault: the link's time since then is not lost, and the senders have
so long to hand over what was due. Only links whose whole queue drains within it ever notice."""
MAX_PASSES = 64
"""Reads and service alternate at most so often before other callbacks of the loop get a turn."""
MAX_GATHERED = 32


class LaneObserver(Protocol):
    """Told when a flow of the lane is over."""

    def on_ended(self, flow: FlowId, ending: Ending) -> None:
        """Everything of the flow was written to the sink, and its ending has arrived."""
        ...

    def on_sink_broken(self, flow: FlowId) -> None:
        """The sink refuses bytes; the flow was dropped."""
        ...


@dataclass(slots=True, eq=False)
class Pipe:
    """One flow: the bytes read from ``source`` that are not yet written to ``sink``."""

    flow: FlowId
    source: socket.socket
    sink: socket.socket
    held: deque[memoryview] = field(default_factory=deque[memoryview])
    arrived_bytes: int = 0
    """How many of the held bytes, from the front, the model has delivered."""
    ending: Ending | None = None
    """Set when the flow's ending has arrived."""
    is_source_open: bool = True
    is_watching_source: bool = False
    is_watching_sink: bool = False


class Lane:
    """Pumps one direction for any number of flows.

    Args:
        bottleneck: the model, made with the same clock.
        observer: told of endings.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        bottleneck: Bottleneck,
        observer: LaneObserver,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._bottleneck = bottleneck
        self._observer = observer
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._pipes: dict[FlowId, Pipe] = {}
        self._readable: deque[Pipe] = deque()
        """Flows that may have bytes to read; the others wait for their source's readiness."""
        self._is_full = False
        """Whether the last pump left bytes unread for want of room."""
        self._last_full_s = -math.inf
        self._catch_up_until_s = -math.inf
        self._timer: asyncio.TimerHandle | None = None
        self.accepted_bytes = 0
        self.delivered_bytes = 0

    @property
    def bottleneck(self) -> Bottleneck:
        return self._bottleneck

    def open(self, pipe: Pipe) -> None:
        """Start a flow; both sockets must be non-blocking and connected."""
        self._pipes[pipe.flow] = pipe
        self._readable.append(pipe)
        self.pump()

    def close(self, flow: FlowId) -> None:
        """Forget a flow and stop watching its sockets, which stay open."""
        pipe = self._pipes.pop(flow, None)
        if pipe is None:
            return
        pipe.is_source_open = False
        self._watch_source(pipe, watch=False)
        self._watch_sink(pipe, watch=False)
        if pipe in self._readable:
            self._readable.remove(pipe)
        self._bottleneck.advance(self._clock())
        self._bottleneck.drop_flow(flow)

    def fail(self, flow: FlowId) -> bool:
        """Let the flow end in a reset, behind its bytes; False if its end was sent already."""
        pipe = self._pipes.get(flow)
        if pipe is None or not pipe.is_source_open:
            return False
        self._end_source(pipe, Ending.RESET)
        self.pump()
        return True

    def shut(self) -> None:
        """Close every flow and cancel the timer."""
        for flow in tuple(self._pipes):
            self.close(flow)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def pump(self) -> None:
        """Serve, read and write whatever is due now, and set the timer for the rest."""
        now = self._clock()
        if self._is_full:
            self._catch_up_until_s = now + CATCH_UP_S
        busy_since_s = self._last_full_s if now <= self._catch_up_until_s else math.inf
        self._bottleneck.advance(now, busy_since_s=busy_since_s)
        for _ in range(MAX_PASSES):
            if not self._read():
                break
            self._bottleneck.advance(now, busy_since_s=busy_since_s)
        self._is_full = bool(self._readable)
        if self._is_full:
            self._last_full_s = now
        self._bottleneck.advance(now + EARLY_S, busy_since_s=min(busy_since_s, now))
        self._deliver(now + EARLY_S)
        self._arm(now)

    def _read(self) -> bool:
        """Read once from each flow that has room; whether any byte or ending came."""
        moved = False
        passed_over: list[Pipe] = []
        for _ in range(len(self._readable)):
            pipe = self._readable.popleft()
            room_bytes = self._bottleneck.room_bytes(pipe.flow)
            if room_bytes < SEGMENT_BYTES or pipe.arrived_bytes > OUTBOX_BYTES:
                passed_over.append(pipe)
                continue
            moved = self._read_from(pipe, min(room_bytes, READ_BYTES)) or moved
        # Who got nothing is first next time, so that scarce room goes round.
        self._readable.extendleft(reversed(passed_over))
        return moved

    def _read_from(self, pipe: Pipe, limit_bytes: int) -> bool:
        try:
            data = pipe.source.recv(limit_bytes)
        except BlockingIOError:
            self._watch_source(pipe, watch=True)
            return False
        except OSError:
            self._end_source(pipe, Ending.RESET)
            return True
        if not data:
            self._end_source(pipe, Ending.CLOSE)
            return True
        pipe.held.append(memoryview(data))
        self.accepted_bytes += len(data)
        self._bottleneck.enqueue(pipe.flow, len(data))
        self._readable.append(pipe)
        return True

    def _end_source(self, pipe: Pipe, ending: Ending) -> None:
        pipe.is_source_open = False
        self._watch_source(pipe, watch=False)
        if pipe in self._readable:
            self._readable.remove(pipe)
        self._bottleneck.enqueue(pipe.flow, 0, ending)

    def _deliver(self, now: float) -> None:
        due: dict[FlowId, Pipe] = {}
        for delivery in self._bottleneck.pop_due(now):
            pipe = self._pipes[delivery.flow]
            pipe.arrived_bytes += delivery.size_bytes
            self.delivered_bytes += delivery.size_bytes
            pipe.ending = delivery.ending
            due[delivery.flow] = pipe
        for pipe in due.values():
            self._flush(pipe)

    def _flush(self, pipe: Pipe) -> None:
        """Write what has arrived; wait for the sink where it is full."""
        if pipe.is_watching_sink:
            return
        try:
            while pipe.arrived_bytes > 0:
                _consume(pipe, pipe.sink.sendmsg(_arrived(pipe)))
        except BlockingIOError:
            self._watch_sink(pipe, watch=True)
            return
        except OSError:
            self.close(pipe.flow)
            self._observer.on_sink_broken(pipe.flow)
            return
        if pipe.ending is not None:
            self.close(pipe.flow)
            self._observer.on_ended(pipe.flow, pipe.ending)

    def _on_source_ready(self, pipe: Pipe) -> None:
        self._watch_source(pipe, watch=False)
        self._readable.append(pipe)
        self.pump()

    def _on_sink_ready(self, pipe: Pipe) -> None:
        self._watch_sink(pipe, watch=False)
        self._flush(pipe)
        self.pump()

    def _watch_source(self, pipe: Pipe, *, watch: bool) -> None:
        if watch and not pipe.is_watching_source:
            self._loop.add_reader(pipe.source.fileno(), self._on_source_ready, pipe)
        elif pipe.is_watching_source and not watch:
            self._loop.remove_reader(pipe.source.fileno())
        pipe.is_watching_source = watch

    def _watch_sink(self, pipe: Pipe, *, watch: bool) -> None:
        if watch and not pipe.is_watching_sink:
            self._loop.add_writer(pipe.sink.fileno(), self._on_sink_ready, pipe)
        elif pipe.is_watching_sink and not watch:
            self._loop.remove_writer(pipe.sink.fileno())
        pipe.is_watching_sink = watch

    def _arm(self, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        next_s = self._bottleneck.next_event_s()
        if next_s < math.inf:
            self._timer = self._loop.call_later(max(next_s - EARLY_S - now, TICK_S), self.pump)


def _arrived(pipe: Pipe) -> list[memoryview]:
    """The front of the held bytes that may be written, in at most a few buffers."""
    buffers: list[memoryview] = []
    left = pipe.arrived_bytes
    for chunk in pipe.held:
        if left == 0 or len(buffers) == MAX_GATHERED:
            break
        part = chunk[:left]
        buffers.append(part)
        left -= len(part)
    return buffers


def _consume(pipe: Pipe, sent_bytes: int) -> None:
    pipe.arrived_bytes -= sent_bytes
    while sent_bytes > 0:
        chunk = pipe.held.popleft()
        if len(chunk) > sent_bytes:
            pipe.held.appendleft(chunk[sent_bytes:])
            return
        sent_bytes -= len(chunk)

"""Who is served next at a bottleneck: one queue in order of arrival, or one a flow in turns.

This module owns the order and the count of waiting bytes. It knows neither time nor rate
(``bottleneck``), and drops nothing: the room it reports is the caller's to respect.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import NewType, Protocol, assert_never

FlowId = NewType("FlowId", int)


class Ending(Enum):
    """What stands at the end of a flow's bytes."""

    CLOSE = "close"
    """An orderly half-close (FIN)."""
    RESET = "reset"
    """The sender's connection broke (RST)."""


class Discipline(Enum):
    """Who is served next when several flows share the bottleneck."""

    FIFO = "fifo"
    """One queue in order of arrival: what most access links do."""
    FAIR = "fair"
    """One queue a flow, served in turns; the limit then bounds each flow's queue."""


@dataclass(slots=True)
class Entry:
    """Bytes of one flow that arrived together; ``ending`` follows the last of them."""

    flow: FlowId
    left_bytes: int
    ending: Ending | None = None


class WaitingLine(Protocol):
    """What a bottleneck needs of its queue."""

    @property
    def total_bytes(self) -> int:
        """Bytes waiting, of all flows."""
        ...

    def room_bytes(self, flow: FlowId) -> int:
        """How many more bytes of this flow fit."""
        ...

    def head(self) -> Entry | None:
        """The entry in service, None when nothing waits."""
        ...

    def append(self, entry: Entry) -> None:
        """Put an entry behind those of its flow."""
        ...

    def turn_bytes(self, full_turn_bytes: int) -> int:
        """How many bytes the head may have before another flow's turn (at least one)."""
        ...

    def take(self, size_bytes: int, full_turn_bytes: int) -> None:
        """Remove served bytes from the head (all of them: the entry goes); pass on a full turn."""
        ...

    def drop(self, flow: FlowId) -> None:
        """Forget a flow."""
        ...


def waiting_line(discipline: Discipline, limit_bytes: int) -> WaitingLine:
    """An empty queue of the given discipline."""
    match discipline:
        case Discipline.FIFO:
            return FifoLine(limit_bytes)
        case Discipline.FAIR:
            return FairLine(limit_bytes)
        case _:
            assert_never(discipline)


class FifoLine:
    """One queue in order of arrival; its limit is shared by all flows."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._entries: deque[Entry] = deque()
        self._total_bytes = 0

    @property
    def total_bytes(self) -> int:
        return self._total_bytes

    def room_bytes(self, flow: FlowId) -> int:  # noqa: ARG002 - all flows share one limit
        return max(self._limit_bytes - self._total_bytes, 0)

    def head(self) -> Entry | None:
        return self._entries[0] if self._entries else None

    def append(self, entry: Entry) -> None:
        self._entries.append(entry)
        self._total_bytes += entry.left_bytes

    def turn_bytes(self, full_turn_bytes: int) -> int:  # noqa: ARG002 - there are no turns
        return max(self._entries[0].left_bytes, 1)

    def take(self, size_bytes: int, full_turn_bytes: int) -> None:  # noqa: ARG002 - likewise
        entry = self._entries[0]
        entry.left_bytes -= size_bytes
        self._total_bytes -= size_bytes
        if entry.left_bytes == 0:
            self._entries.popleft()

    def drop(self, flow: FlowId) -> None:
        self._entries = deque(entry for entry in self._entries if entry.flow != flow)
        self._total_bytes = sum(entry.left_bytes for entry in self._entries)


class FairLine:
    """One queue a flow, each with the whole limit, served in turns."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._turns: deque[FlowId] = deque()
        self._entries: dict[FlowId, deque[Entry]] = {}
        self._waiting_bytes: dict[FlowId, int] = {}
        self._taken_bytes = 0
        """What the flow in turn has had of it."""

    @property
    def total_bytes(self) -> int:
        return sum(self._waiting_bytes.values())

    def room_bytes(self, flow: FlowId) -> int:
        return max(self._limit_bytes - self._waiting_bytes.get(flow, 0), 0)

    def head(self) -> Entry | None:
        return self._entries[self._turns[0]][0] if self._turns else None

    def append(self, entry: Entry) -> None:
        flow = entry.flow
        if flow not in self._entries:
            self._turns.append(flow)
            self._entries[flow] = deque()
            self._waiting_bytes[flow] = 0
        self._entries[flow].append(entry)
        self._waiting_bytes[flow] += entry.left_bytes

    def turn_bytes(self, full_turn_bytes: int) -> int:
        return max(full_turn_bytes - self._taken_bytes, 1)

    def take(self, size_bytes: int, full_turn_bytes: int) -> None:
        flow = self._turns[0]
        entry = self._entries[flow][0]
        entry.left_bytes -= size_bytes
        self._waiting_bytes[flow] -= size_bytes
        self._taken_bytes += size_bytes
        if entry.left_bytes == 0:
            self._entries[flow].popleft()
        if not self._entries[flow]:
            self.drop(flow)
        elif self._taken_bytes >= full_turn_bytes:
            self._turns.rotate(-1)
            self._taken_bytes = 0

    def drop(self, flow: FlowId) -> None:
        if self._entries.pop(flow, None) is not None:
            if self._turns[0] == flow:
                self._taken_bytes = 0
            self._turns.remove(flow)
            del self._waiting_bytes[flow]

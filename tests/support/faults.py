"""Seeded faults of a link: what breaks, when in a session, for how long."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import assert_never

from scout_core.testbed.link import Direction
from scout_core.testbed.proxy import LinkEmulator
from scout_core.testbed.schedule import RateSchedule


class FaultKind(Enum):
    """What happens to the link."""

    RESET = "reset"
    """Every connection is reset."""
    OUTAGE = "outage"
    """Nothing passes in either direction; connections stay open."""
    UPLINK_STALL = "uplink stall"
    """Nothing goes up, while everything still comes down."""
    DOWNLINK_STALL = "downlink stall"
    """The other way round."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault, ``after_share`` of a session's undisturbed time after the one before it."""

    kind: FaultKind
    after_share: float
    duration_s: float


@dataclass(frozen=True, slots=True)
class Rates:
    """What the link's directions carry when nothing is wrong, Mbit/s."""

    up_mbps: float
    down_mbps: float


def random_faults(count: int, longest_s: float, seed: int) -> deque[Fault]:
    """``count`` faults, every kind as often; equal seeds give equal faults."""
    random = Random(seed)
    kinds = [tuple(FaultKind)[number % len(FaultKind)] for number in range(count)]
    random.shuffle(kinds)
    return deque(
        Fault(kind, random.uniform(0.0, 0.7), random.uniform(0.05, longest_s)) for kind in kinds
    )


@dataclass(slots=True)
class Saboteur:
    """Does faults to a link while a session is on its way.

    Attributes:
        left: the faults still to be done; a session that ends early leaves its own to the next.
        done: how many there were of each kind.
    """

    link: LinkEmulator
    rates: Rates
    left: deque[Fault]
    done: dict[FaultKind, int]

    async def disturb(self, asking: asyncio.Task[object], usual_s: float, most: int) -> None:
        """Up to ``most`` faults while ``asking`` is not done; a stall runs on beside the next."""
        for _ in range(most):
            if not self.left:
                return
            await asyncio.wait({asking}, timeout=self.left[0].after_share * usual_s)
            if asking.done():
                return
            self._do(self.left.popleft())

    def _do(self, fault: Fault) -> None:
        self.done[fault.kind] = self.done.get(fault.kind, 0) + 1
        match fault.kind:
            case FaultKind.RESET:
                self.link.reset_connections()
            case FaultKind.OUTAGE:
                self.link.outage(fault.duration_s)
            case FaultKind.UPLINK_STALL:
                stalled = _stall(fault.duration_s, self.rates.up_mbps)
                self.link.set_schedule(Direction.UP, stalled)
            case FaultKind.DOWNLINK_STALL:
                stalled = _stall(fault.duration_s, self.rates.down_mbps)
                self.link.set_schedule(Direction.DOWN, stalled)
            case _:
                assert_never(fault.kind)


def _stall(duration_s: float, mbps: float) -> RateSchedule:
    return RateSchedule.from_spans([(duration_s, 0.0), (1.0, mbps)], loop=False)

"""What a link is: rates, delay, jitter and queue of its two directions, as validated settings.

This module owns the numbers. How a direction behaves is ``bottleneck``'s, in real time ``proxy``'s,
in virtual time ``virtual``'s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import assert_never

from scout_core.errors import SettingsError
from scout_core.testbed.queueing import Discipline
from scout_core.testbed.schedule import RateSchedule

SEGMENT_BYTES = 256
"""Smallest piece of a longer entry that is delivered alone. Smaller than a packet (1,448 bytes), so
that counting bytes over 5 s at 0.1 Mbit/s is exact to 0.4 % and not to 2.3 %."""
DEFAULT_QUEUE_BYTES = 256 * 1024


class Direction(Enum):
    """Which way over the link."""

    UP = "up"
    """From those who connect to the emulator to its upstream."""
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class DirectionConfig:
    """One direction of a link.

    Args:
        schedule: the rate over time; its time 0 is the moment the bottleneck is made.
        delay_s: one-way propagation delay, half of the round trip.
        jitter_s: each delivery is late by 0 to this much more, but never overtakes.
        queue_bytes: what the bottleneck holds before it stops taking bytes.
        discipline: how flows share.
        seed: of the jitter.

    Raises:
        SettingsError: a value is negative, not finite, or the queue below one segment.
    """

    schedule: RateSchedule
    delay_s: float = 0.0
    jitter_s: float = 0.0
    queue_bytes: int = DEFAULT_QUEUE_BYTES
    discipline: Discipline = Discipline.FIFO
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in (("delay_s", self.delay_s), ("jitter_s", self.jitter_s)):
            if not math.isfinite(value) or value < 0:
                raise SettingsError(f"Link: {name} must be a finite number ≥ 0, got {value}.")
        if self.queue_bytes < SEGMENT_BYTES:
            raise SettingsError(
                f"Link: queue_bytes must be at least one segment ({SEGMENT_BYTES}), "
                f"got {self.queue_bytes}."
            )


@dataclass(frozen=True, slots=True)
class LinkConfig:
    """A link of two directions.

    Args:
        up: rate from client to upstream; its time 0 is when the emulator starts.
        down: rate back.
        rtt_s: base round trip; each direction delays by half of it.
        jitter_s: see ``DirectionConfig``; of each direction.
        queue_bytes: of each direction.
        discipline: how connections share each direction.
        seed: of the jitter.

    Raises:
        SettingsError: see ``DirectionConfig``.
    """

    up: RateSchedule
    down: RateSchedule
    rtt_s: float = 0.0
    jitter_s: float = 0.0
    queue_bytes: int = DEFAULT_QUEUE_BYTES
    discipline: Discipline = Discipline.FIFO
    seed: int = 0

    def __post_init__(self) -> None:
        for direction in Direction:
            self.direction(direction)

    @classmethod
    def constant(cls, up_mbps: float, down_mbps: float, rtt_s: float = 0.0) -> LinkConfig:
        """A link of fixed rates with the default queue."""
        return cls(RateSchedule.constant(up_mbps), RateSchedule.constant(down_mbps), rtt_s)

    def direction(self, direction: Direction) -> DirectionConfig:
        """What one direction's bottleneck needs; the two have unlike jitter."""
        match direction:
            case Direction.UP:
                schedule, seed = self.up, 2 * self.seed
            case Direction.DOWN:
                schedule, seed = self.down, 2 * self.seed + 1
            case _:
                assert_never(direction)
        return DirectionConfig(
            schedule=schedule,
            delay_s=self.rtt_s / 2,
            jitter_s=self.jitter_s,
            queue_bytes=self.queue_bytes,
            discipline=self.discipline,
            seed=seed,
        )

"""Virtual time: many transfers over one shared uplink, under any allocator.

This module owns the physics: bytes move at the granted rates as long as the uplink carries them, an
edge computes before it sends, the cloud after the last byte. It does not know how rates come about:
a ``Contender`` sets them. It keeps its own books of what a switch of offer keeps, apart from the
scheduler's, so that one checks the other. Nothing here reads a clock; equal input, equal output.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from scout_core.allocation.offer import Offer
from scout_core.evaluation.allocation_workload import PlannedRequest, Workload
from scout_core.testbed.schedule import BITS_PER_BYTE, BITS_PER_MEGABIT, RateSchedule

PATIENCE: Final = 2.0
"""A request is given up when so many times its deadline have passed: nobody waits for ever, and a
collapsed uplink would otherwise never recover."""
IN_TIME_S: Final = 1e-4
"""Tolerance of "by the deadline": progress is told in whole bytes, so a transfer that is planned to
end at its deadline may miss it by the time of a byte or two."""
DONE_BYTES: Final = 1.0
"""There is no part of a byte to wait for."""
NO_OFFER: Final = -1


class Outcome(Enum):
    """What became of a request."""

    WAITING = "waiting"
    """Not arrived yet, or still being sent."""
    ANSWERED = "answered"
    REJECTED = "rejected"
    GIVEN_UP = "given_up"


@dataclass(slots=True, eq=False)
class Transfer:
    """One live request on the uplink."""

    index: int
    request: PlannedRequest
    offer: int = NO_OFFER
    rate_bytes_per_s: float = 0.0
    received_bytes: float = 0.0
    spent_on_offer: float = 0.0
    kept_fraction: float = 0.0
    kept_quality: float = 0.0
    parts: dict[int, float] = field(default_factory=dict[int, float])
    """How much of the context crossed as KV in each offer."""

    @property
    def terms(self) -> Offer:
        return self.request.offers[self.offer]

    @property
    def remaining_bytes(self) -> float:
        """Of the offer now; a whole-KV offer continues what others of its kind have sent."""
        if self.offer == NO_OFFER:
            return float("inf")
        if self.terms.continues_prefix:
            return self.terms.payload_bytes * (1.0 - self.kept_fraction)
        return max(self.terms.payload_bytes - self.spent_on_offer, 0.0)

    @property
    def quality(self) -> float:
        """Of the answer, once everything has arrived."""
        return self.kept_quality if self.terms.continues_prefix else self.terms.quality

    @property
    def ready_at_s(self) -> float:
        """When the edge has something to send; infinite without an offer."""
        if self.offer == NO_OFFER:
            return float("inf")
        return self.request.arrival_s + (0.0 if self.received_bytes > 0 else self.terms.edge_s)

    def choose(self, offer: int) -> None:
        """Switches to another offer."""
        if offer != self.offer:
            self.offer, self.spent_on_offer = offer, 0.0

    def deliver(self, size_bytes: float) -> None:
        """Books bytes that crossed the uplink."""
        self.received_bytes += size_bytes
        self.spent_on_offer += size_bytes
        if self.terms.continues_prefix:
            part = size_bytes / self.terms.payload_bytes
            self.kept_fraction += part
            self.parts[self.offer] = self.parts.get(self.offer, 0.0) + part
            self.kept_quality += part * self.terms.quality


@dataclass(frozen=True, slots=True)
class Step:
    """What happened since the contender was last asked.

    Attributes:
        now: seconds since the start.
        capacity_bytes_per_s: what the uplink carries now.
        arrived: new transfers.
        ended: indices of requests whose payload is complete or given up.
        live: all transfers on the uplink, the new ones included.
    """

    now: float
    capacity_bytes_per_s: float
    arrived: tuple[Transfer, ...]
    ended: tuple[int, ...]
    live: dict[int, Transfer]


class Contender(Protocol):
    """An allocator in the study: it chooses offers and sets rates of the live transfers."""

    def decide(self, step: Step) -> tuple[int, ...]:
        """Sets ``offer`` and ``rate_bytes_per_s`` of transfers; returns whom it turns away."""
        ...

    def wake_s(self) -> float | None:
        """When it wants to be asked again, whatever happens."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Played:
    """The outcome of every request, in the workload's order.

    Attributes:
        outcome: ``[requests]``.
        first_token_s: ``[requests]`` seconds after arrival; inf without an answer.
        quality: ``[requests]`` of the answer; 0 without one.
        in_time: ``[requests]``.
        sent_bytes: ``[requests]``.
        offers: ``[requests]`` the last offer; ``NO_OFFER`` if none.
        parts: ``[requests]`` how much of the context crossed as KV in each offer.
    """

    outcome: tuple[Outcome, ...]
    first_token_s: NDArray[np.float64]
    quality: NDArray[np.float64]
    in_time: NDArray[np.bool_]
    sent_bytes: NDArray[np.float64]
    offers: NDArray[np.int64]
    parts: tuple[dict[int, float], ...]


def play(workload: Workload, contender: Contender) -> Played:
    """Runs a workload to its end under ``contender``."""
    return _Run(workload, contender).to_end()


class _Run:
    def __init__(self, workload: Workload, contender: Contender) -> None:
        count = len(workload.requests)
        self._requests = workload.requests
        self._uplink = workload.uplink
        self._contender = contender
        self._live: dict[int, Transfer] = {}
        self._next = 0
        self._now = 0.0
        self._outcome = [Outcome.WAITING] * count
        self._first_token_s = np.full(count, np.inf)
        self._quality = np.zeros(count)
        self._sent = np.zeros(count)
        self._offers = np.full(count, NO_OFFER, dtype=np.int64)
        self._parts: list[dict[int, float]] = [{} for _ in range(count)]

    def to_end(self) -> Played:
        ended: tuple[int, ...] = ()
        while self._live or self._next < len(self._requests):
            arrived = self._arrivals()
            capacity = bytes_per_s(self._uplink, self._now)
            step = Step(self._now, capacity, arrived, ended, self._live)
            turned_away = self._contender.decide(step)
            for index in turned_away:
                self._end(index, Outcome.REJECTED)
            until_s = self._next_change_s()
            self._advance(until_s)
            self._now = until_s
            ended = self._completions()
        deadlines = np.array([request.deadline_s for request in self._requests])
        in_time = self._first_token_s <= deadlines + IN_TIME_S
        return Played(
            tuple(self._outcome),
            self._first_token_s,
            self._quality,
            in_time,
            self._sent,
            self._offers,
            tuple(self._parts),
        )

    def _arrivals(self) -> tuple[Transfer, ...]:
        arrived: list[Transfer] = []
        while (
            self._next < len(self._requests)
            and self._requests[self._next].arrival_s <= self._now + 1e-12
        ):
            transfer = Transfer(self._next, self._requests[self._next])
            self._live[self._next] = transfer
            arrived.append(transfer)
            self._next += 1
        return tuple(arrived)

    def _next_change_s(self) -> float:
        """The first of: an arrival, a completion, an edge ready, a new capacity, a wish."""
        times = [_next_span_s(self._uplink, self._now)]
        if self._next < len(self._requests):
            times.append(self._requests[self._next].arrival_s)
        wish = self._contender.wake_s()
        if wish is not None:
            times.append(wish)
        scale = self._scale()
        for transfer in self._live.values():
            times.append(_given_up_s(transfer.request))
            if transfer.ready_at_s > self._now:
                times.append(transfer.ready_at_s)
            elif transfer.rate_bytes_per_s * scale > 0:
                rate = transfer.rate_bytes_per_s * scale
                times.append(self._now + transfer.remaining_bytes / rate)
        # A wish for now is granted one nanosecond later, so that time always moves.
        return max(min(times), self._now + 1e-9)

    def _scale(self) -> float:
        """Below 1 while more is granted than the uplink carries: everybody is slowed alike."""
        granted = sum(
            transfer.rate_bytes_per_s
            for transfer in self._live.values()
            if transfer.ready_at_s <= self._now
        )
        capacity = bytes_per_s(self._uplink, self._now)
        return min(1.0, capacity / granted) if granted > 0 else 1.0

    def _advance(self, until_s: float) -> None:
        scale, span_s = self._scale(), until_s - self._now
        for transfer in self._live.values():
            if transfer.ready_at_s <= self._now and transfer.rate_bytes_per_s > 0:
                size = transfer.rate_bytes_per_s * scale * span_s
                transfer.deliver(min(size, transfer.remaining_bytes))

    def _completions(self) -> tuple[int, ...]:
        ended: list[int] = []
        for index, transfer in tuple(self._live.items()):
            if transfer.remaining_bytes < DONE_BYTES:
                after_s = self._now + transfer.terms.cloud_s - transfer.request.arrival_s
                self._first_token_s[index] = after_s
                self._quality[index] = transfer.quality
                self._end(index, Outcome.ANSWERED)
                ended.append(index)
            elif _given_up_s(transfer.request) <= self._now:
                self._end(index, Outcome.GIVEN_UP)
                ended.append(index)
        return tuple(ended)

    def _end(self, index: int, outcome: Outcome) -> None:
        transfer = self._live.pop(index)
        self._outcome[index] = outcome
        self._sent[index] = transfer.received_bytes
        self._offers[index] = transfer.offer
        self._parts[index] = transfer.parts


def bytes_per_s(uplink: RateSchedule, at_s: float) -> float:
    """The uplink's rate in bytes a second."""
    return uplink.rate_mbps(at_s) * BITS_PER_MEGABIT / BITS_PER_BYTE


def _given_up_s(request: PlannedRequest) -> float:
    return request.arrival_s + PATIENCE * request.deadline_s


def _next_span_s(uplink: RateSchedule, now: float) -> float:
    """When the rate may change next; inf if it never does."""
    if uplink.period_s is None:
        later = [start for start in uplink.starts_s if start > now]
        return later[0] if later else float("inf")
    base_s = math.floor(now / uplink.period_s) * uplink.period_s
    starts = np.array([*uplink.starts_s, uplink.period_s])
    # A start that rounding makes equal to now has passed.
    coming = starts[base_s + starts > now + 1e-9]
    following = float(coming[0]) if coming.size else uplink.period_s + float(starts[0])
    return base_s + following

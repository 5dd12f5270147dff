"""Requests over a virtual link: bytes up, time at the server, bytes down.

This module owns the sequence of one request's steps on both directions of a link, for studies and
for comparing virtual with real time. How long a direction takes is ``virtual``'s.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

from scout_core.testbed.link import Direction, LinkConfig
from scout_core.testbed.queueing import FlowId
from scout_core.testbed.virtual import TransferId, VirtualDirection

DEFAULT_FLOW = FlowId(0)


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request: at ``arrival_s`` a flow sends; the server works; the answer comes back."""

    arrival_s: float
    up_bytes: int
    server_s: float = 0.0
    down_bytes: int = 1
    flow: FlowId = DEFAULT_FLOW


@dataclass(frozen=True, slots=True)
class ExchangeTimes:
    """When the upload had reached the server, and the answer the client; infinite if never."""

    uploaded_s: float
    answered_s: float


def simulate(config: LinkConfig, exchanges: Sequence[Exchange]) -> tuple[ExchangeTimes, ...]:
    """Play exchanges over an otherwise idle link whose schedules start at 0.

    Exchanges of one flow may overlap: their bytes go one behind the other, as on one connection.
    Returns the times in the order given.
    """
    up = VirtualDirection(config.direction(Direction.UP))
    down = VirtualDirection(config.direction(Direction.DOWN))
    uploads: dict[TransferId, int] = {}
    answers: dict[TransferId, int] = {}
    uploaded_s = [math.inf] * len(exchanges)
    answered_s = [math.inf] * len(exchanges)
    arrivals = [(exchange.arrival_s, index) for index, exchange in enumerate(exchanges)]
    replies: list[tuple[float, int]] = []
    heapq.heapify(arrivals)
    while True:
        arrival_s = arrivals[0][0] if arrivals else math.inf
        reply_s = replies[0][0] if replies else math.inf
        now = min(arrival_s, reply_s, up.next_event_s(), down.next_event_s())
        if math.isinf(now):
            break
        for done in up.advance(now):
            index = uploads.pop(done.transfer)
            uploaded_s[index] = done.at_s
            heapq.heappush(replies, (done.at_s + exchanges[index].server_s, index))
        for done in down.advance(now):
            answered_s[answers.pop(done.transfer)] = done.at_s
        while arrivals and arrivals[0][0] <= now:
            _, index = heapq.heappop(arrivals)
            exchange = exchanges[index]
            uploads[up.submit(exchange.flow, exchange.up_bytes, now)] = index
        while replies and replies[0][0] <= now:
            _, index = heapq.heappop(replies)
            exchange = exchanges[index]
            answers[down.submit(exchange.flow, exchange.down_bytes, now)] = index
    pairs = zip(uploaded_s, answered_s, strict=True)
    return tuple(ExchangeTimes(upload, answer) for upload, answer in pairs)

"""Sessions over loopback beside two kinds of gRPC stream and raw TCP, in one run.

The host is noisy and its load changes, so all take turns, each turn in another order, and a ratio
is the median over the turns, not a quotient of two medians. What the streams are:
``transport_uploads``.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final, assert_never

from scout_core.daemon.heap import keep_freed_memory
from scout_core.evaluation.transport_payload import Payload
from scout_core.evaluation.transport_process import SinkProcess
from scout_core.evaluation.transport_sink import SinkPorts
from scout_core.evaluation.transport_uploads import (
    CHUNK_BYTES,
    SessionPath,
    upload_by_bare_stream,
    upload_by_premade_stream,
    upload_by_session,
    upload_by_tcp,
)

MEGABYTE: Final = 1e6
LOOPBACK_ROUND_TRIP_S: Final = 0.001
"""What an edge's heartbeats measure between two processes of one host, in order of magnitude; the
window takes no less than 10 ms."""

Report = Callable[[str], None]


class Contender(Enum):
    """Who uploads; the value is its name in progress lines. Neighbours are compared."""

    BARE = "bare gRPC"
    SESSION = "session"
    PREMADE = "premade gRPC"
    TCP = "TCP"


@dataclass(frozen=True, slots=True)
class LoopbackOptions:
    """``turns`` of all contenders are measured after one that is not.

    Where the kernel puts the threads of the two processes, anew for each connection, makes an
    upload up to twice as fast: one turn's ratio says little, and even the median of 15 turns varies
    by some hundredths from run to run.
    """

    payload_bytes: int = 256_000_000
    turns: int = 45


@dataclass(frozen=True, slots=True)
class LoopbackFigures:
    """Medians over the turns, payload megabytes (10^6) a second."""

    ours_mb_s: float
    premade_grpc_mb_s: float
    bare_grpc_mb_s: float
    tcp_mb_s: float
    ratio_premade: float
    """Median over the turns of ours ÷ premade: checks, acks and credit are not free."""
    ratio_grpc: float
    """Median over the turns of ours ÷ bare."""


async def measure_loopback(options: LoopbackOptions, report: Report) -> LoopbackFigures:
    """Two processes, whose heaps are kept as the daemons keep theirs; one upload at a time.

    Raises:
        ScoutError: an upload failed.
    """
    keep_freed_memory()
    payload = Payload.of_size(options.payload_bytes)
    rates: dict[Contender, list[float]] = {contender: [] for contender in Contender}
    async with SinkProcess() as sink:
        for turn in range(options.turns + 1):
            for contender in _order(turn):
                seconds = await _upload(contender, sink.ports, payload)
                rates[contender].append(payload.total_bytes / MEGABYTE / seconds)
            if turn == 0:
                rates = {contender: [] for contender in Contender}
            else:
                latest = (f"{contender.value} {rates[contender][-1]:.0f}" for contender in rates)
                report(f"turn {turn}/{options.turns}: {', '.join(latest)} MB/s")
    ours = rates[Contender.SESSION]
    return LoopbackFigures(
        ours_mb_s=statistics.median(ours),
        premade_grpc_mb_s=statistics.median(rates[Contender.PREMADE]),
        bare_grpc_mb_s=statistics.median(rates[Contender.BARE]),
        tcp_mb_s=statistics.median(rates[Contender.TCP]),
        ratio_premade=_median_ratio(ours, rates[Contender.PREMADE]),
        ratio_grpc=_median_ratio(ours, rates[Contender.BARE]),
    )


def _order(turn: int) -> list[Contender]:
    """Session and bare stream stay neighbours, now one first and now the other."""
    order = list(Contender)
    return order if turn % 2 else order[::-1]


def _median_ratio(ours: list[float], theirs: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


async def _upload(contender: Contender, ports: SinkPorts, payload: Payload) -> float:
    """Seconds of one upload."""
    match contender:
        case Contender.SESSION:
            path = SessionPath(f"127.0.0.1:{ports.session}", LOOPBACK_ROUND_TRIP_S)
            return (await upload_by_session(path, payload)).elapsed_s
        case Contender.PREMADE:
            return await upload_by_premade_stream(ports.premade, payload, CHUNK_BYTES)
        case Contender.BARE:
            return await upload_by_bare_stream(ports.bare, payload, CHUNK_BYTES)
        case Contender.TCP:
            return await asyncio.to_thread(upload_by_tcp, ports.tcp, payload, CHUNK_BYTES)
        case _:
            assert_never(contender)

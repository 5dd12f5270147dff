"""Sessions over loopback beside a bare gRPC stream and raw TCP, in one run.

The host is noisy and its load changes, so the three take turns and the ratio is the median over
turns of neighbours, not a quotient of two medians.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from scout_core.evaluation.transport_payload import Payload
from scout_core.evaluation.transport_process import SinkProcess
from scout_core.evaluation.transport_sink import SinkPorts
from scout_core.evaluation.transport_uploads import (
    CHUNK_BYTES,
    SessionPath,
    upload_by_bare_stream,
    upload_by_session,
    upload_by_tcp,
)

MEGABYTE: Final = 1e6
LOOPBACK_ROUND_TRIP_S: Final = 0.001
"""What an edge's heartbeats measure between two processes of one host, in order of magnitude; the
window takes no less than 10 ms."""

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class LoopbackOptions:
    """``turns`` of the three contenders are measured after one that is not."""

    payload_bytes: int = 256_000_000
    turns: int = 7


@dataclass(frozen=True, slots=True)
class LoopbackFigures:
    """Medians over the turns, payload megabytes (10^6) a second."""

    ours_mb_s: float
    bare_grpc_mb_s: float
    tcp_mb_s: float
    ratio_grpc: float
    """Median over the turns of ours ÷ bare."""


async def measure_loopback(options: LoopbackOptions, report: Report) -> LoopbackFigures:
    """Two processes, one upload at a time.

    Raises:
        ScoutError: an upload failed.
    """
    payload = Payload.of_size(options.payload_bytes)
    megabytes = payload.total_bytes / MEGABYTE
    ours: list[float] = []
    bare: list[float] = []
    tcp: list[float] = []
    async with SinkProcess() as sink:
        for turn in range(options.turns + 1):
            seconds = await _take_turn(sink.ports, payload, bare_first=turn % 2 == 1)
            if turn == 0:
                continue
            ours.append(megabytes / seconds[0])
            bare.append(megabytes / seconds[1])
            tcp.append(megabytes / seconds[2])
            report(
                f"turn {turn}/{options.turns}: session {ours[-1]:.0f} MB/s, "
                f"bare gRPC {bare[-1]:.0f} MB/s, TCP {tcp[-1]:.0f} MB/s"
            )
    return LoopbackFigures(
        statistics.median(ours),
        statistics.median(bare),
        statistics.median(tcp),
        statistics.median(a / b for a, b in zip(ours, bare, strict=True)),
    )


async def _take_turn(
    ports: SinkPorts, payload: Payload, *, bare_first: bool
) -> tuple[float, float, float]:
    """Seconds of session, bare stream and TCP; neighbours swap so that neither gains by order."""
    path = SessionPath(f"127.0.0.1:{ports.session}", LOOPBACK_ROUND_TRIP_S)
    bare_s = 0.0
    if bare_first:
        bare_s = await upload_by_bare_stream(ports.bare, payload, CHUNK_BYTES)
    session = await upload_by_session(path, payload)
    if not bare_first:
        bare_s = await upload_by_bare_stream(ports.bare, payload, CHUNK_BYTES)
    tcp_s = await asyncio.to_thread(upload_by_tcp, ports.tcp, payload, CHUNK_BYTES)
    return session.elapsed_s, bare_s, tcp_s

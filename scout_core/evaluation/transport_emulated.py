"""Sessions over the link emulator: how much of the rate they use, and what backlog they keep.

Goodput is payload, without any framing, from the first chunk handed over to the last ack, the
start of the window included. The backlog is the edge's own count of bytes sent and not acked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from scout_core.evaluation.transport_payload import KIB, MIB, Payload
from scout_core.evaluation.transport_process import SinkProcess
from scout_core.evaluation.transport_sink import LOOPBACK
from scout_core.evaluation.transport_uploads import SessionPath, upload_by_session
from scout_core.testbed.accuracy import LinkOpener

RATES_MBPS: Final = (1.0, 10.0, 100.0)
ROUND_TRIP_S: Final = 0.02
BACKLOG_SLACK_BYTES: Final = 128 * KIB
BITS: Final = 8
MEGABIT: Final = 1e6
BLOCKS_AT_LEAST: Final = 16

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class EmulatedOptions:
    """How long to send at each rate; the backlog counts after the warm-up."""

    rates_mbps: tuple[float, ...] = RATES_MBPS
    round_trip_s: float = ROUND_TRIP_S
    seconds: float = 10.0
    warm_up_s: float = 1.0


@dataclass(frozen=True, slots=True)
class EmulatedRow:
    """One rate. ``bdp_bytes`` is rate × round trip."""

    rate_mbps: float
    goodput_mbps: float
    ratio: float
    backlog_bytes: int
    bdp_bytes: int

    @property
    def backlog_limit_bytes(self) -> int:
        """What the transport's design allows."""
        return 2 * self.bdp_bytes + BACKLOG_SLACK_BYTES


async def measure_emulated(
    options: EmulatedOptions, open_link: LinkOpener, report: Report
) -> list[EmulatedRow]:
    """One session after the other, each over a link of its own.

    Raises:
        ScoutError: a session failed.
    """
    rows: list[EmulatedRow] = []
    async with SinkProcess() as sink:
        upstream = (LOOPBACK, sink.ports.session)
        for rate_mbps in options.rates_mbps:
            async with open_link(rate_mbps, options.round_trip_s, upstream) as link:
                row = await _measure_rate(options, rate_mbps, link.address)
            report(
                f"{rate_mbps:g} Mbit/s: goodput {row.goodput_mbps:.3f} Mbit/s ({row.ratio:.3f}), "
                f"backlog {row.backlog_bytes} of {row.backlog_limit_bytes} bytes"
            )
            rows.append(row)
    return rows


async def _measure_rate(
    options: EmulatedOptions, rate_mbps: float, address: tuple[str, int]
) -> EmulatedRow:
    rate_bytes_per_s = rate_mbps * MEGABIT / BITS
    total_bytes = int(rate_bytes_per_s * options.seconds)
    payload = Payload.of_size(total_bytes, min(MIB, total_bytes // BLOCKS_AT_LEAST))
    path = SessionPath(f"{address[0]}:{address[1]}", options.round_trip_s, options.warm_up_s)
    upload = await upload_by_session(path, payload)
    goodput_mbps = upload.payload_bytes * BITS / MEGABIT / upload.transfer_s
    return EmulatedRow(
        rate_mbps,
        goodput_mbps,
        goodput_mbps / rate_mbps,
        upload.peak_backlog_bytes,
        int(rate_bytes_per_s * options.round_trip_s),
    )

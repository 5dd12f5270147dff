"""On which link which codec gets a cache across first: the crossover of DESIGN §2.

Owns the arithmetic from measured speeds (``codec_speed``) to the rows of ``scout bench codec``. The
time of a codec is the policy's own rule (``scout_core.control.coding``): encoding overlaps the
transfer, decoding follows it. It measures nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from scout_core.control.coding import CodedKv, KvCoding
from scout_core.evaluation.codec_speed import BITS, SpeedRow

LINKS_GBIT_S: Final = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 25.0, 100.0)
"""From a bad mobile uplink to what a loopback or a rack's network carries."""
RAW: Final = "raw_bf16"
EXACT: Final = (RAW, "lossless_bf16", "embedded_bf16")
"""Codecs that keep every bit."""


@dataclass(frozen=True, slots=True)
class CrossoverRow:
    """One link rate; milliseconds from the first block to a decoded cache."""

    context_tokens: int
    threads: int
    link_gbit_s: float
    raw_ms: float
    exact: str
    """The codec that is there first among those that keep every bit."""
    exact_ms: float
    fastest: str
    """The one that is there first among all."""
    fastest_ms: float


def crossover_rows(speed: Sequence[SpeedRow]) -> Iterator[CrossoverRow]:
    """The winners at each link rate, for every cache and thread count that was measured."""

    def run(row: SpeedRow) -> tuple[int, int]:
        return row.context_tokens, row.threads

    for (context_tokens, threads), rows in groupby(sorted(speed, key=run), key=run):
        coded = {row.codec: coded_at_speed(row) for row in rows}
        for link_gbit_s in LINKS_GBIT_S:
            times = {
                name: 1e3 * kv.seconds_at(link_gbit_s * 1e9 / BITS) for name, kv in coded.items()
            }
            exact = min((name for name in EXACT if name in times), key=times.__getitem__)
            fastest = min(times, key=times.__getitem__)
            yield CrossoverRow(
                context_tokens=context_tokens,
                threads=threads,
                link_gbit_s=link_gbit_s,
                raw_ms=times[RAW],
                exact=exact,
                exact_ms=times[exact],
                fastest=fastest,
                fastest_ms=times[fastest],
            )


def coded_at_speed(row: SpeedRow) -> CodedKv:
    """What the policy would be told of a codec with these speeds."""
    return CodedKv(
        coding=KvCoding.PLAIN,
        payload_bytes=round(row.input_bytes / row.ratio),
        encode_s=row.input_bytes / (row.encode_gb_s * 1e9),
        inject_s=row.input_bytes / (row.decode_gb_s * 1e9),
    )

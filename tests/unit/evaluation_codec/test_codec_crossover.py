"""Slow links want few bytes, fast ones little arithmetic."""

from __future__ import annotations

import pytest

from scout_core.evaluation.codec_crossover import LINKS_GBIT_S, crossover_rows
from scout_core.evaluation.codec_speed import SpeedRow

INPUT_BYTES = 24_000_000


def row(codec: str, ratio: float, encode: float, decode: float, threads: int = 1) -> SpeedRow:
    return SpeedRow(codec, "cpu", threads, 1024, INPUT_BYTES, ratio, encode, decode, 20.0, 0.0)


SPEED = [
    row("raw_bf16", 1.0, 15.0, 15.0),
    row("lossless_bf16", 1.5, 0.7, 0.6),
    row("int4_groups", 3.2, 5.0, 8.0),
    row("transform_12", 10.0, 0.4, 0.4),
    row("raw_bf16", 1.0, 20.0, 20.0, threads=2),
]


def test_each_measured_run_has_one_row_a_link() -> None:
    rows = list(crossover_rows(SPEED))
    assert [r.link_gbit_s for r in rows] == [*LINKS_GBIT_S, *LINKS_GBIT_S]
    assert {r.threads for r in rows[: len(LINKS_GBIT_S)]} == {1}


def test_winners_go_from_fewest_bytes_to_least_arithmetic() -> None:
    rows = [r for r in crossover_rows(SPEED) if r.threads == 1]
    fastest = [r.fastest for r in rows]
    assert fastest[0] == "transform_12"
    assert fastest[-1] == "raw_bf16"
    order = ["transform_12", "int4_groups", "raw_bf16"]
    assert [order.index(name) for name in fastest] == sorted(map(order.index, fastest))
    assert rows[0].exact == "lossless_bf16"
    assert rows[-1].exact == "raw_bf16"


def test_times_are_of_the_slower_of_coding_and_sending_and_of_decoding() -> None:
    rows = {r.link_gbit_s: r for r in crossover_rows(SPEED) if r.threads == 1}
    decode_ms = INPUT_BYTES / 15e9 * 1e3
    assert rows[1.0].raw_ms == pytest.approx(8 * INPUT_BYTES / 1e9 * 1e3 + decode_ms)
    encoded_ms = 2 * INPUT_BYTES / 0.4e9 * 1e3  # the transform's encoding outlasts its transfer
    sent_ms = (8 / 3.2 / 1e9 + 1 / 8e9) * INPUT_BYTES * 1e3
    assert rows[1.0].fastest_ms == pytest.approx(min(encoded_ms, sent_ms))
    assert all(r.fastest_ms <= r.exact_ms <= r.raw_ms for r in rows.values())

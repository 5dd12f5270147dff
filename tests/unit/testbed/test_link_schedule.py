"""Rate schedules: the integral and its inverse are exact."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scout_core.errors import SettingsError
from scout_core.testbed.schedule import RateSchedule

spans = st.lists(
    st.tuples(
        st.floats(min_value=0.05, max_value=20.0),
        st.one_of(st.just(0.0), st.floats(min_value=0.01, max_value=1000.0)),
    ),
    min_size=1,
    max_size=12,
)


def test_constant_rate_carries_rate_times_time() -> None:
    schedule = RateSchedule.constant(8.0)
    assert schedule.bits_between(1.0, 3.5) == pytest.approx(20e6)
    assert schedule.finish_time(2.0, 1_000_000) == pytest.approx(3.0)


def test_steps_are_integrated_piece_by_piece() -> None:
    schedule = RateSchedule.from_spans([(1.0, 100.0), (1.0, 20.0), (1.0, 3.0)], loop=False)
    assert schedule.bits_between(0.5, 2.5) == pytest.approx(50e6 + 20e6 + 1.5e6)
    assert schedule.rate_mbps(0.999) == 100.0
    assert schedule.rate_mbps(1.0) == 20.0
    assert schedule.rate_mbps(99.0) == 3.0


def test_looping_schedule_repeats() -> None:
    schedule = RateSchedule.from_spans([(1.0, 10.0), (1.0, 0.0)], loop=True)
    assert schedule.bits_between(0.0, 10.0) == pytest.approx(50e6)
    assert schedule.rate_mbps(7.5) == 0.0
    assert schedule.finish_time(1.2, 10e6 / 8) == pytest.approx(3.0)
    assert schedule.finish_time(1.2, 15e6 / 8) == pytest.approx(4.5)


def test_outage_delays_a_transfer_by_its_length() -> None:
    schedule = RateSchedule.from_spans([(1.0, 8.0), (5.0, 0.0), (1.0, 8.0)], loop=False)
    assert schedule.finish_time(0.5, 1_000_000) == pytest.approx(6.5)


def test_dead_schedule_never_finishes() -> None:
    assert RateSchedule.constant(0.0).finish_time(0.0, 1) == math.inf
    assert RateSchedule.from_spans([(2.0, 0.0)], loop=True).finish_time(0.0, 1) == math.inf
    assert RateSchedule.constant(0.0).finish_time(3.0, 0) == 3.0


@given(
    spans,
    st.booleans(),
    st.floats(min_value=0.0, max_value=500.0),
    st.integers(min_value=1, max_value=10**8),
)
def test_finish_time_inverts_the_integral(
    pieces: list[tuple[float, float]], loop: bool, start_s: float, size_bytes: int
) -> None:
    schedule = RateSchedule.from_spans(pieces, loop=loop)
    finish_s = schedule.finish_time(start_s, size_bytes)
    if math.isinf(finish_s):
        assert schedule.bits_between(start_s, start_s + 1e6) < size_bytes * 8
        return
    assert finish_s >= start_s
    # A byte that follows gigabytes is told no finer than the two sums that differ by it.
    fastest_bits_per_s = 1e6 * max(mbps for _, mbps in pieces)
    rounding = math.ulp(finish_s) * fastest_bits_per_s + 4 * math.ulp(
        schedule.bits_between(0.0, finish_s)
    )
    carried = schedule.bits_between(start_s, finish_s)
    assert carried == pytest.approx(size_bytes * 8, rel=1e-6, abs=rounding)


@given(spans, st.booleans(), st.lists(st.floats(min_value=0.0, max_value=300.0), min_size=3))
def test_integral_is_additive_and_never_negative(
    pieces: list[tuple[float, float]], loop: bool, times: list[float]
) -> None:
    schedule = RateSchedule.from_spans(pieces, loop=loop)
    times.sort()
    parts = [schedule.bits_between(a, b) for a, b in pairwise(times)]
    assert min(parts) >= -1e-3
    assert sum(parts) == pytest.approx(schedule.bits_between(times[0], times[-1]), abs=1.0)


def test_mean_and_scaling() -> None:
    schedule = RateSchedule.from_spans([(1.0, 10.0), (3.0, 2.0)], loop=True)
    assert schedule.mean_mbps(0.0, 8.0) == pytest.approx(4.0)
    assert schedule.scaled(0.5).mean_mbps(0.0, 8.0) == pytest.approx(2.0)
    with pytest.raises(SettingsError, match="interval"):
        schedule.mean_mbps(2.0, 2.0)


@pytest.mark.parametrize(
    ("starts", "rates", "period"),
    [
        ((), (), None),
        ((0.0, 1.0), (1.0,), None),
        ((1.0,), (1.0,), None),
        ((0.0, 1.0, 1.0), (1.0, 2.0, 3.0), None),
        ((0.0, 2.0), (1.0, 2.0), 2.0),
        ((0.0,), (-1.0,), None),
        ((0.0,), (math.nan,), None),
        ((0.0,), (1.0,), math.inf),
    ],
)
def test_malformed_schedules_are_refused(
    starts: tuple[float, ...], rates: tuple[float, ...], period: float | None
) -> None:
    with pytest.raises(SettingsError):
        RateSchedule(starts, rates, period)

"""Forecast arithmetic: a distribution over transfer times."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scout_core.control.coverage import LEVELS
from scout_core.control.forecast import RateBelief, TransferForecast


def forecast_of(
    bytes_per_s: float, deviation: float, round_trip_s: float = 0.0
) -> TransferForecast:
    belief = RateBelief(math.log(bytes_per_s), deviation, (1.0,))
    return TransferForecast((belief,), (0.0,), 0.0, round_trip_s, known=True)


def test_median_transfer_time_is_size_over_rate_plus_round_trip() -> None:
    forecast = forecast_of(1e6, 0.5, round_trip_s=0.04)
    assert forecast.transfer_time_s(2_000_000, 0.5) == pytest.approx(2.04, rel=2e-3)


@given(
    size=st.integers(1, 10**9),
    rate=st.floats(1e3, 1e9),
    deviation=st.floats(0.05, 2.0),
    quantile=st.floats(0.05, 0.95),
)
def test_quantile_and_probability_are_inverse(
    size: int, rate: float, deviation: float, quantile: float
) -> None:
    forecast = forecast_of(rate, deviation)
    seconds = forecast.transfer_time_s(size, quantile)
    if 1e-3 < seconds < 3000.0:
        assert forecast.probability_within(size, seconds) == pytest.approx(quantile, abs=0.02)


@given(st.floats(0.01, 0.98), st.integers(1, 10**8))
def test_higher_quantiles_never_take_less_time(quantile: float, size: int) -> None:
    forecast = forecast_of(2e6, 0.8)
    assert forecast.transfer_time_s(size, quantile) <= forecast.transfer_time_s(
        size, quantile + 0.01
    )


def test_nothing_to_send_takes_a_round_trip() -> None:
    assert forecast_of(1e6, 0.5, round_trip_s=0.03).transfer_time_s(0, 0.9) == 0.03


def test_nothing_arrives_within_less_than_a_round_trip() -> None:
    assert forecast_of(1e9, 0.5, round_trip_s=0.03).probability_within(1, 0.02) == 0.0


def test_weights_are_those_of_the_lag_age_included() -> None:
    near = RateBelief(math.log(1e6), 0.1, (1.0, 0.0))
    usual = RateBelief(math.log(1e5), 0.1, (0.0, 1.0))
    lags = (math.log(0.1), math.log(10.0))
    fresh = TransferForecast((near, usual), lags, 0.0, 0.0, known=True)
    old = TransferForecast((near, usual), lags, 10.0, 0.0, known=True)
    assert fresh.probability_within(50_000, 0.1) > 0.99
    assert old.probability_within(50_000, 0.1) < 0.01
    halfway = fresh.probability_within(500_000, 1.0)
    assert halfway == pytest.approx(0.5, abs=0.01)


def test_correction_maps_probabilities_to_what_they_turned_out_to_mean() -> None:
    forecast = forecast_of(1e6, 0.5)
    curve = tuple(level**2 for level in LEVELS)
    careful = replace(forecast, correction=curve)
    assert careful.probability_within(1_000_000, 1.0) == pytest.approx(0.25, abs=0.01)
    assert careful.transfer_time_s(10**6, 0.9) > forecast.transfer_time_s(10**6, 0.9)


def test_low_rate_lies_below_the_median_rate() -> None:
    forecast = forecast_of(1e6, 0.6)
    assert forecast.low_bytes_per_s < 0.6 * forecast.median_bytes_per_s
    assert forecast.median_bytes_per_s == pytest.approx(1e6, rel=0.01)

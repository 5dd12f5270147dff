"""The estimator: what counts as evidence, and what follows from it."""

from __future__ import annotations

import math
import random

import pytest

from scout_core.control.estimator import EstimatorSettings, GoodputEstimator
from scout_core.control.samples import TransferSample


def sample(bytes_per_s: float, at_s: float, window_s: float = 0.5) -> TransferSample:
    return TransferSample(int(bytes_per_s * window_s), window_s, False, at_s)


def fed(rates: list[float], spacing_s: float = 0.5) -> GoodputEstimator:
    estimator = GoodputEstimator()
    for index, rate in enumerate(rates):
        estimator.observe(sample(rate, (index + 1) * spacing_s))
    return estimator


def test_unknown_link_says_so_and_is_careful() -> None:
    forecast = GoodputEstimator().forecast(0.0)
    assert not forecast.known
    assert forecast.low_bytes_per_s < 0.25 * forecast.median_bytes_per_s


def test_steady_link_is_found_within_two_per_cent() -> None:
    forecast = fed([3e6] * 20).forecast(10.0)
    assert forecast.known
    assert forecast.median_bytes_per_s == pytest.approx(3e6, rel=0.03)
    assert forecast.low_bytes_per_s > 0.75 * 3e6


def test_volatile_link_gets_a_wider_forecast_than_a_steady_one() -> None:
    source = random.Random(5)
    wild = fed([3e6 * math.exp(source.gauss(0.0, 0.8)) for _ in range(40)]).forecast(20.0)
    calm = fed([3e6] * 40).forecast(20.0)
    wild_share = wild.low_bytes_per_s / wild.median_bytes_per_s
    calm_share = calm.low_bytes_per_s / calm.median_bytes_per_s
    assert wild_share < calm_share - 0.05


def test_forecast_widens_with_the_age_of_its_evidence() -> None:
    estimator = fed([1e6] * 20)
    fresh, old = estimator.forecast(10.0), estimator.forecast(300.0)
    assert old.transfer_time_s(10**6, 0.9) > 1.2 * fresh.transfer_time_s(10**6, 0.9)


def test_a_collapse_is_followed_within_three_samples() -> None:
    estimator = fed([1e7] * 20)
    for index in range(3):
        estimator.observe(sample(1e5, 10.5 + 0.5 * index))
    assert estimator.forecast(11.5).median_bytes_per_s < 2e6


def test_application_limited_samples_never_lower_the_estimate() -> None:
    estimator = fed([1e6] * 10)
    assert not estimator.observe(TransferSample(50_000, 1.0, True, 6.0))
    assert estimator.observe(TransferSample(5_000_000, 1.0, True, 7.0))


def test_tiny_payloads_are_ignored() -> None:
    estimator = GoodputEstimator()
    assert not estimator.observe(TransferSample(300, 0.01, False, 1.0))
    assert not estimator.forecast(1.0).known


def test_a_stall_counts_although_no_byte_arrived() -> None:
    estimator = fed([1e6] * 10)
    assert estimator.observe(TransferSample(0, 0.5, False, 5.5))
    assert estimator.forecast(5.5).median_bytes_per_s < 0.9e6


def test_the_prior_is_a_setting() -> None:
    estimator = GoodputEstimator(EstimatorSettings(prior_bytes_per_s=1e4))
    assert estimator.forecast(0.0).median_bytes_per_s == pytest.approx(1e4, rel=0.05)


def test_settled_transfers_make_later_forecasts_more_careful_when_they_were_late() -> None:
    estimator = fed([1e6] * 20)
    before = estimator.forecast(10.0)
    for _ in range(30):
        forecast = estimator.forecast(10.0)
        estimator.settle(forecast, 10**6, forecast.transfer_time_s(10**6, 0.97))
    after = estimator.forecast(10.0)
    assert after.transfer_time_s(10**6, 0.8) > before.transfer_time_s(10**6, 0.8)


def test_transfers_over_an_unknown_link_settle_nothing() -> None:
    estimator = GoodputEstimator()
    estimator.settle(estimator.forecast(0.0), 10**6, 100.0)
    assert estimator.forecast(0.0) == GoodputEstimator().forecast(0.0)

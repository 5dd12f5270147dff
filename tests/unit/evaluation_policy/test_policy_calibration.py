"""The calibration study's own arithmetic, and its verdict on links where it can be foreseen."""

from __future__ import annotations

import math
import random

import pytest

from scout_core.control.rate_experts import EXPERTS, LAGS_S
from scout_core.control.samples import TransferSample
from scout_core.evaluation.policy_calibration import (
    Classics,
    calibration_rows,
    judged_transfers,
)
from scout_core.evaluation.policy_links import Link, made_links
from scout_core.evaluation.policy_shares import fitted_shares
from scout_core.testbed.schedule import RateSchedule


def noisy_link(number: int) -> Link:
    source = random.Random(number)
    rates = tuple(10.0 * math.exp(source.gauss(0.0, 0.5)) for _ in range(600))
    starts = tuple(float(second) for second in range(600))
    return Link(f"noisy-{number}", "noisy", RateSchedule(starts, rates, 600.0))


def test_ninety_per_cent_means_ninety_per_cent_on_a_noisy_link() -> None:
    judged = [t for number in range(8) for t in judged_transfers(noisy_link(number))]
    (ours, *_) = calibration_rows(judged)
    assert ours.predictor == "ours"
    assert ours.transfers > 700
    assert ours.coverage["0.9"] == pytest.approx(0.9, abs=0.02)
    assert ours.coverage["0.5"] == pytest.approx(0.5, abs=0.05)


def test_ours_loses_less_than_every_point_predictor_at_ninety_per_cent() -> None:
    judged = [t for link in made_links()[::4] for t in judged_transfers(link)]
    for tech_class in {t.tech_class for t in judged}:
        table = {
            row.predictor: row.pinball["0.9"]
            for row in calibration_rows(t for t in judged if t.tech_class == tech_class)
        }
        assert table["ours"] == min(table.values())


def test_point_predictors_follow_their_definitions() -> None:
    classics = Classics()
    for rate in (1e6, 2e6, 4e6):
        classics.observe(TransferSample(int(rate), 1.0, False, 0.0))
    rates = classics.rates()
    assert rates["last_sample"] == 4e6
    assert rates["harmonic_mean_5"] == pytest.approx(3.0 / (1e-6 + 0.5e-6 + 0.25e-6))
    assert 1e6 < rates["ewma_2_5"] < 4e6


def test_fitted_shares_are_distributions_over_the_experts() -> None:
    table = fitted_shares(made_links()[::12])
    assert len(table) == len(LAGS_S)
    for row in table:
        assert len(row) == len(EXPERTS)
        assert sum(row) == pytest.approx(1.0)

"""The experts: shares by lag, and what a link teaches."""

from __future__ import annotations

import math
import random

import pytest

from scout_core.control.rate_experts import EXPERTS, LAGS_S, SHARES, RateExperts, shares_at


def test_fitted_shares_sum_to_one_at_every_lag() -> None:
    assert len(SHARES) == len(LAGS_S)
    for row in SHARES:
        assert len(row) == len(EXPERTS)
        assert sum(row) == pytest.approx(1.0, abs=0.005)


def test_the_latest_value_counts_less_the_longer_ago_it_is() -> None:
    just_now = [shares_at(lag_s)[0] for lag_s in (0.1, 1.0, 5.0, 100.0)]
    assert just_now == sorted(just_now, reverse=True)
    usual = [shares_at(lag_s)[7] for lag_s in (0.1, 1.0, 5.0, 100.0)]
    assert usual == sorted(usual)


def test_a_steady_link_earns_the_narrow_expert_trust() -> None:
    experts = RateExperts()
    for _ in range(100):
        experts.observe(1e6, 0.5)
        experts.judge(experts.opinions(), math.log(1e6), 5.0)
    assert experts.trust[0] > 2.0
    assert experts.trust[2] < 1.0


def test_a_wild_link_loses_the_narrow_expert_trust() -> None:
    source = random.Random(1)
    experts = RateExperts()
    for _ in range(200):
        opinions = experts.opinions()
        log_rate = source.gauss(14.0, 1.0)
        experts.observe(math.exp(log_rate), 0.5)
        if opinions:
            experts.judge(opinions, log_rate, 0.5)
    assert experts.trust[0] < 0.5


def test_what_nobody_expected_judges_nobody() -> None:
    experts = RateExperts()
    experts.observe(1e9, 0.5)
    before = experts.trust
    experts.judge(experts.opinions(), math.log(500.0), 0.2)
    assert experts.trust == pytest.approx(before, abs=0.2)

"""Policies: the same interface, different judgement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scout_core.control.estimator import GoodputEstimator
from scout_core.control.forecast import TransferForecast
from scout_core.control.offers import Offer
from scout_core.control.policies import (
    POLICY_NAMES,
    ChanceConstraintPolicy,
    FixedPolicy,
    OraclePolicy,
    RobustMpcPolicy,
    ThroughputPolicy,
    policy_named,
)
from scout_core.control.policies.robust_mpc import largest_error
from scout_core.control.policy import Situation, meeting_probability
from scout_core.errors import ModeUnavailableError, SettingsError
from scout_core.modes import Execution, Mode

Steady = Callable[[float], TransferForecast]


def offer(mode: Mode, size: int, quality: float, retention: float = 1.0) -> Offer:
    return Offer(mode, retention, Execution.EVICT, size, quality, edge_s=0.1, cloud_s=0.1)


OFFERS = (
    offer(Mode.KV_BF16, 4_000_000, 1.0),
    offer(Mode.KV_INT8, 2_100_000, 0.99),
    offer(Mode.KV_INT4, 1_100_000, 0.95),
    offer(Mode.KV_SELECT, 600_000, 0.93, 0.5),
    offer(Mode.SCOUT, 400, 0.90),
    offer(Mode.SCOUT, 40, 0.88, 0.5),
)


@pytest.mark.parametrize(
    ("bytes_per_s", "mode"),
    [
        (10e6, Mode.KV_BF16),
        (3e6, Mode.KV_INT8),
        (1.6e6, Mode.KV_INT4),
        (1e6, Mode.KV_SELECT),
        (1e4, Mode.SCOUT),
    ],
)
@pytest.mark.parametrize("name", ["ours", "throughput", "robust_mpc"])
def test_on_a_known_link_the_best_mode_that_fits_is_chosen(
    steady: Steady, name: str, bytes_per_s: float, mode: Mode
) -> None:
    situation = Situation(steady(bytes_per_s), deadline_s=1.0)
    decision = policy_named(name).choose(OFFERS, situation)
    assert decision.offer.mode is mode
    assert decision.predicted_ttft_s <= 1.0


def test_ours_is_more_careful_on_an_unknown_link_than_the_median_suggests() -> None:
    forecast = GoodputEstimator().forecast(0.0)
    situation = Situation(forecast, deadline_s=4.0)
    decision = ChanceConstraintPolicy().choose(OFFERS, situation)
    assert decision.offer.mode is Mode.SCOUT
    assert ThroughputPolicy().choose(OFFERS, situation).offer.mode is not Mode.SCOUT


def test_ours_takes_fewer_bytes_on_a_tie(steady: Steady) -> None:
    tied = (offer(Mode.KV_BF16, 2000, 1.0), offer(Mode.KV_INT8, 1000, 1.0))
    decision = ChanceConstraintPolicy().choose(tied, Situation(steady(1e9), deadline_s=1.0))
    assert decision.offer.mode is Mode.KV_INT8


def test_when_nothing_can_make_it_ours_says_so_and_is_done_soonest(steady: Steady) -> None:
    decision = ChanceConstraintPolicy().choose(OFFERS, Situation(steady(1e4), deadline_s=0.15))
    assert decision.probability == 0.0
    assert "No mode can meet" in decision.reason
    assert decision.offer is OFFERS[-1]


def test_when_none_reaches_the_target_ours_takes_the_likeliest() -> None:
    forecast = GoodputEstimator().forecast(0.0)
    situation = Situation(forecast, deadline_s=1.0, target_probability=0.99)
    decision = ChanceConstraintPolicy().choose(OFFERS[:4], situation)
    assert decision.offer is OFFERS[3]
    assert 0.1 < decision.probability < 0.99
    assert "likeliest" in decision.reason


def test_a_hundredth_of_quality_is_not_bought_with_a_tenth_of_certainty() -> None:
    forecast = GoodputEstimator().forecast(0.0)
    situation = Situation(forecast, deadline_s=30.0, target_probability=0.8)
    large, small = OFFERS[0], replace(OFFERS[4], quality=0.995)
    assert meeting_probability(large, situation) >= 0.8
    assert ChanceConstraintPolicy().choose((large, small), situation).offer is small


@given(st.floats(0.2, 10.0), st.floats(0.5, 0.99))
def test_ours_never_falls_short_of_the_target_when_some_offer_reaches_it(
    deadline_s: float, target: float
) -> None:
    situation = Situation(GoodputEstimator().forecast(0.0), deadline_s, target_probability=target)
    best = max(meeting_probability(each, situation) for each in OFFERS)
    decision = ChanceConstraintPolicy().choose(OFFERS, situation)
    assert decision.probability >= min(target, best)


def test_queues_and_elapsed_time_count_against_the_deadline(steady: Steady) -> None:
    free = Situation(steady(10e6), deadline_s=1.0)
    busy = Situation(
        steady(10e6), deadline_s=1.0, elapsed_s=0.2, edge_queue_s=0.1, cloud_queue_s=0.2
    )
    assert meeting_probability(OFFERS[0], free) > 0.99
    assert meeting_probability(OFFERS[0], busy) < 0.01


def test_encoding_slower_than_the_link_decides_the_time(steady: Steady) -> None:
    slow = Offer(Mode.KV_INT4, 1.0, Execution.EVICT, 1000, 1.0, 0.0, 0.0, encode_s=2.0)
    assert meeting_probability(slow, Situation(steady(1e9), deadline_s=1.0)) == 0.0


def test_fixed_policies_keep_their_mode_whatever_the_link(steady: Steady) -> None:
    for mode in Mode:
        decision = FixedPolicy(mode).choose(OFFERS, Situation(steady(1e3), deadline_s=0.5))
        assert decision.offer.mode is mode


def test_fixed_scout_keeps_half_and_tokens_keeps_all(steady: Steady) -> None:
    situation = Situation(steady(1e6), deadline_s=1.0)
    assert policy_named("fixed:scout").choose(OFFERS, situation).offer.retention == 0.5
    assert policy_named("tokens").choose(OFFERS, situation).offer.retention == 1.0


def test_fixed_refuses_what_is_not_feasible(steady: Steady) -> None:
    with pytest.raises(ModeUnavailableError, match="kv_bf16 is not feasible"):
        FixedPolicy(Mode.KV_BF16).choose(OFFERS[4:], Situation(steady(1e6), deadline_s=1.0))


def test_robust_mpc_discounts_by_its_largest_recent_error() -> None:
    assert largest_error((1e6,) * 8) == pytest.approx(0.0, abs=1e-9)
    assert largest_error((1e6, 1e6, 1e6, 0.5e6)) == pytest.approx(1.0)


def test_robust_mpc_is_more_careful_than_the_throughput_rule_on_a_wild_link(
    steady: Steady,
) -> None:
    calm = steady(6e6)
    wild = replace(calm, recent_bytes_per_s=(9e6, 3e6, 9e6, 4e6, 9e6, 6e6))
    situation = Situation(wild, deadline_s=1.0)
    bold = ThroughputPolicy().choose(OFFERS, situation).offer.payload_bytes
    careful = RobustMpcPolicy().choose(OFFERS, situation).offer.payload_bytes
    assert careful < bold


def test_the_oracle_knows_the_true_time(steady: Steady) -> None:
    oracle = OraclePolicy(lambda size, start_s: size / 3e6 + 0.0 * start_s)
    decision = oracle.choose(OFFERS, Situation(steady(1e3), deadline_s=1.0))
    assert decision.offer.mode is Mode.KV_INT8
    assert decision.probability == 1.0


def test_every_settings_name_is_a_policy_of_that_name() -> None:
    assert [policy_named(name).name for name in POLICY_NAMES] == list(POLICY_NAMES)


def test_an_unknown_policy_is_a_settings_error() -> None:
    with pytest.raises(SettingsError, match="choose one of"):
        policy_named("fixed:tokens")


def test_an_empty_list_is_refused(steady: Steady) -> None:
    with pytest.raises(ModeUnavailableError):
        ChanceConstraintPolicy().choose((), Situation(steady(1.0), deadline_s=1.0))

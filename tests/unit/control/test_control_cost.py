"""The cost model learns lines from noisy measurements."""

from __future__ import annotations

import random

import pytest

from scout_core.control.cost import CostModel, Stage, StageCost


def trained(base_s: float, per_token_s: float, noise: float, rounds: int = 60) -> CostModel:
    source = random.Random(3)
    model = CostModel()
    for _ in range(rounds):
        tokens = source.choice([50, 170, 700, 2000, 4096])
        seconds = (base_s + per_token_s * tokens) * (1.0 + noise * source.uniform(-1.0, 1.0))
        model.observe(Stage.CLOUD_PREFILL, tokens, seconds)
    return model


def test_learns_base_and_slope_within_a_tenth() -> None:
    model = trained(0.03, 5e-5, noise=0.1)
    for tokens in (170, 1000, 4096):
        assert model.predict(Stage.CLOUD_PREFILL, tokens) == pytest.approx(
            0.03 + 5e-5 * tokens, rel=0.1
        )
    assert model.relative_error(Stage.CLOUD_PREFILL) < 0.15


def test_one_outlier_moves_no_prediction_by_half() -> None:
    model = trained(0.03, 5e-5, noise=0.05)
    before = model.predict(Stage.CLOUD_PREFILL, 1000)
    model.observe(Stage.CLOUD_PREFILL, 1000, 60.0)
    assert model.predict(Stage.CLOUD_PREFILL, 1000) < 1.5 * before


def test_a_host_that_slows_down_is_followed_within_thirty_requests() -> None:
    model = trained(0.03, 5e-5, noise=0.05)
    for _ in range(30):
        model.observe(Stage.CLOUD_PREFILL, 1000, 0.16)
    assert model.predict(Stage.CLOUD_PREFILL, 1000) == pytest.approx(0.16, rel=0.15)


def test_predictions_are_never_negative() -> None:
    model = CostModel()
    for tokens, seconds in ((100, 1.0), (200, 0.5), (400, 0.1)) * 10:
        model.observe(Stage.EDGE_SCORE, tokens, seconds)
    assert all(model.predict(Stage.EDGE_SCORE, tokens) >= 0.0 for tokens in (0, 1, 10**6))


def test_measurements_replace_the_prior() -> None:
    model = CostModel([StageCost(Stage.CLOUD_INJECT, 1.0, 0.1)])
    assert model.predict(Stage.CLOUD_INJECT, 100) == 11.0
    for _ in range(40):
        model.observe(Stage.CLOUD_INJECT, 100, 0.01)
    assert model.predict(Stage.CLOUD_INJECT, 100) == pytest.approx(0.01, rel=0.1)


def test_a_clock_fault_is_ignored() -> None:
    model = CostModel()
    before = model.costs()
    for seconds in (-1.0, float("nan"), float("inf")):
        model.observe(Stage.CLOUD_PREFILL, 10, seconds)
    assert model.costs() == before


def test_costs_survive_a_round_trip() -> None:
    model = trained(0.03, 5e-5, noise=0.1)
    again = CostModel(model.costs())
    assert again.costs() == model.costs()
    line = again.predict(Stage.CLOUD_PREFILL, 999)
    assert line == pytest.approx(model.predict(Stage.CLOUD_PREFILL, 999), rel=0.1)


def test_a_prior_a_hundred_times_too_fast_is_overcome_within_twenty_requests() -> None:
    model = CostModel([StageCost(Stage.CLOUD_PREFILL, 1e-4, 1e-6)])
    for index in range(20):
        tokens = (170, 700, 2000)[index % 3]
        model.observe(Stage.CLOUD_PREFILL, tokens, 0.03 + 1e-4 * tokens)
    assert model.predict(Stage.CLOUD_PREFILL, 2000) == pytest.approx(0.23, rel=0.15)


def test_a_stage_that_grows_faster_than_its_tokens_is_followed_at_every_length() -> None:
    # Prefill of the 14B shape on an H100 (DESIGN §2): no line meets all three within a tenth.
    measured = {170: 0.044, 4096: 0.234, 16_384: 1.095}
    model = CostModel()
    for _ in range(20):
        for tokens, seconds in measured.items():
            model.observe(Stage.CLOUD_PREFILL, tokens, seconds)
    for tokens, seconds in measured.items():
        assert model.predict(Stage.CLOUD_PREFILL, tokens) == pytest.approx(seconds, rel=0.1)

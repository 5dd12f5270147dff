"""Scores and selectors over attention."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scout_core.errors import EmptyInputError, ProfileError, RetentionError
from scout_core.selection import (
    HeadWeights,
    PoolKind,
    calibrated_scores,
    head_features,
    kept_count,
    pooled,
    select_runs,
    select_top,
    uniform_mean_scores,
)
from scout_core.selection.importance import attended_importance
from scout_core.selection.selectors import run_width


def attention(layers: int = 2, heads: int = 3, positions: int = 40, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(layers, heads, positions, generator=generator).softmax(dim=-1)


def test_features_are_standardised_per_head() -> None:
    features = head_features(attention())
    torch.testing.assert_close(features.mean(dim=-1), torch.zeros(2, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        features.square().mean(dim=-1), torch.ones(2, 3), atol=1e-4, rtol=1e-4
    )


def test_importance_leaves_out_heads_that_do_not_see_a_position() -> None:
    seen = attention()
    seen[0, :, 3] = torch.nan
    seen[:, :, 5] = torch.nan
    importance = attended_importance(seen)
    assert importance[3] == pytest.approx(float(seen[1, :, 3].square().mean()))
    assert importance[5] == 0.0
    assert bool((importance >= 0).all())


def test_a_head_that_distinguishes_nothing_and_one_that_sees_nothing_score_zero() -> None:
    flat = attention()
    flat[0, 0] = 0.025
    flat[1, 2] = 0.0
    features = head_features(flat)
    assert not bool(features[0, 0].any())
    assert not bool(features[1, 2].any())
    assert bool(torch.isfinite(features).all())


def test_features_do_not_depend_on_a_heads_scale() -> None:
    torch.testing.assert_close(head_features(attention() * 0.01), head_features(attention()))


def test_scores_are_the_weighted_sum_of_features() -> None:
    weights = torch.tensor([[1.0, 0.0, -2.0], [0.0, 0.5, 0.0]])
    scores = calibrated_scores(attention(), HeadWeights(weights, bias=0.3, pool_width=1))
    features = head_features(attention())
    expected = features[0, 0] - 2 * features[0, 2] + 0.5 * features[1, 1] + 0.3
    torch.testing.assert_close(scores, expected)


def test_weights_of_another_model_are_refused() -> None:
    with pytest.raises(ProfileError, match="calibrate this model"):
        calibrated_scores(attention(), HeadWeights(torch.ones(3, 3)))


def test_the_uniform_mean_weighs_every_head_alike() -> None:
    torch.testing.assert_close(uniform_mean_scores(attention()), attention().mean(dim=(0, 1)))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(PoolKind.AVERAGE, [0.0, 1.0, 1.0, 1.0, 0.0]), (PoolKind.MAXIMUM, [0.0, 3.0, 3.0, 3.0, 0.0])],
)
def test_pooling_is_centred(kind: PoolKind, expected: list[float]) -> None:
    assert pooled(torch.tensor([0.0, 0.0, 3.0, 0.0, 0.0]), 3, kind).tolist() == expected


def test_pooling_at_the_ends_averages_over_what_is_there() -> None:
    assert pooled(torch.tensor([3.0, 1.0, 2.0]), 3, PoolKind.AVERAGE).tolist() == [2.0, 2.0, 1.5]


@pytest.mark.parametrize(
    ("tokens", "retention", "kept"),
    [(170, 0.5, 85), (170, 0.25, 43), (10, 0.1, 1), (3, 0.01, 1), (7, 1.0, 7), (10, 0.3, 3)],
)
def test_retention_is_rounded_up(tokens: int, retention: float, kept: int) -> None:
    assert kept_count(tokens, retention) == kept


@pytest.mark.parametrize("retention", [0.0, -0.5, 1.01, float("nan")])
def test_retention_outside_its_range_is_refused(retention: float) -> None:
    with pytest.raises(RetentionError):
        kept_count(10, retention)


def test_selecting_from_nothing_is_refused() -> None:
    with pytest.raises(EmptyInputError):
        select_top(torch.empty(0), 0.5)


def test_the_highest_scores_are_kept_in_order_and_ties_go_to_the_earlier() -> None:
    assert select_top(torch.tensor([1.0, 3.0, 2.0, 3.0, 2.0]), 0.6).tolist() == [1, 2, 3]


def test_runs_keep_neighbours_where_single_scores_would_scatter() -> None:
    scores = torch.zeros(90)
    scores[10:19] = 1.0
    scores[::17] = 1.2
    alone, run = select_top(scores, 0.1), select_runs(scores, 0.1)
    assert np.diff(alone).max() > 1
    assert run.tolist() == list(range(run[0], run[0] + 9))


def test_a_run_is_a_third_of_what_is_kept_and_never_wider_than_five() -> None:
    assert [run_width(kept) for kept in (1, 5, 9, 17, 42, 85, 4000)] == [1, 1, 3, 5, 5, 5, 5]


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=60), st.floats(0.01, 1.0))
def test_every_selector_keeps_the_same_count_of_ascending_positions(
    values: list[float], retention: float
) -> None:
    scores = torch.tensor(values)
    for kept in (select_top(scores, retention), select_runs(scores, retention)):
        assert kept.dtype == np.int64
        assert len(kept) == kept_count(len(values), retention)
        assert bool((np.diff(kept) > 0).all())
        assert 0 <= kept[0] <= kept[-1] < len(values)


def test_head_weights_survive_a_profile() -> None:
    weights = HeadWeights(torch.rand(2, 3), 0.5, 7, PoolKind.MAXIMUM)
    again = HeadWeights.from_dict(weights.to_dict())
    assert torch.equal(again.weights, weights.weights)
    assert (again.bias, again.pool_width, again.pool_kind) == (0.5, 7, PoolKind.MAXIMUM)


@pytest.mark.parametrize(
    "change",
    [
        {"weights": [[1.0], [1.0, 2.0]]},
        {"weights": []},
        {"weights": [[float("nan"), 1.0]], "layers": 1},
        {"layers": 5},
        {"pool_width": 4},
        {"pool_kind": "median"},
        {"bias": "much"},
    ],
)
def test_malformed_head_weights_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ProfileError):
        HeadWeights.from_dict(HeadWeights(torch.ones(2, 2)).to_dict() | change)


def test_head_weights_without_a_key_are_refused() -> None:
    values = HeadWeights(torch.ones(2, 2)).to_dict()
    del values["pool_width"]
    with pytest.raises(ProfileError, match="pool_width"):
        HeadWeights.from_dict(values)


def test_a_head_that_cannot_see_a_position_says_nothing_about_it() -> None:
    plain = attention(positions=12)
    windowed = plain.clone()
    windowed[0, :, :5] = torch.nan
    features = head_features(windowed)
    assert bool((features[0, :, :5] == 0).all())
    assert torch.equal(features[0, :, 5:], head_features(plain[:1, :, 5:])[0])
    assert torch.equal(features[1:], head_features(plain)[1:])
    mean = uniform_mean_scores(windowed)
    assert torch.allclose(mean[:5], plain[1:, :, :5].mean(dim=(0, 1)))
    assert torch.allclose(mean[5:], uniform_mean_scores(plain)[5:])

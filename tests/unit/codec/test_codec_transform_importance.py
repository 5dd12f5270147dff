"""Grades from weights: the square root law, its bounds, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scout_core.codec.transform_importance import MOST_COARSER, MOST_FINER, UNIT, grades_of
from scout_core.errors import CodecError

WEIGHTS = st.lists(st.floats(0, 1e30), min_size=1, max_size=60)


def test_four_times_the_weight_halves_the_step_at_full_strength() -> None:
    weights = np.array([1.0, 4.0, 16.0])
    assert grades_of(weights, strength=1.0).tolist() == [4, 0, -4]
    assert grades_of(weights, strength=0.5).tolist() == [2, 0, -2]
    assert grades_of(weights, strength=0.0).tolist() == [0, 0, 0]


@given(WEIGHTS, st.floats(0.001, 1000))
def test_grades_are_bounded_even_and_fall_with_the_weight(
    given_weights: list[float], unit: float
) -> None:
    weights = np.array(given_weights)
    grades = grades_of(weights)
    assert grades.shape == weights.shape
    assert grades.min() >= -MOST_FINER
    assert grades.max() <= MOST_COARSER
    assert not (grades % UNIT).any()
    assert (np.diff(grades[np.argsort(weights)].astype(int)) <= 0).all()


def test_the_unit_of_the_weights_is_of_no_importance() -> None:
    weights = np.random.default_rng(1).lognormal(0, 2, 500)
    assert np.array_equal(grades_of(weights), grades_of(1024 * weights))


@pytest.mark.parametrize("spread", [0.5, 1.5, 4.0])
def test_their_mean_is_near_zero_however_unequal_the_weights(spread: float) -> None:
    weights = np.random.default_rng(2).lognormal(0, spread, 2000)
    assert abs(float(grades_of(weights).mean())) < 0.1


def test_a_few_huge_weights_leave_the_others_their_grades() -> None:
    weights = np.random.default_rng(3).lognormal(0, 1, 300)
    outliers = weights.copy()
    outliers[:3] = 1e12
    difference = grades_of(outliers)[3:].astype(int) - grades_of(weights)[3:]
    assert float(np.abs(difference).mean()) < 0.2


def test_weights_without_difference_give_no_grades() -> None:
    assert not grades_of(np.zeros(9)).any()
    assert not grades_of(np.full(9, 3.0)).any()


@pytest.mark.parametrize("wrong", [[-1.0], [np.nan], [np.inf], [[1.0]]])
def test_what_are_no_weights_is_refused(wrong: list[float]) -> None:
    with pytest.raises(CodecError):
        grades_of(np.array(wrong))

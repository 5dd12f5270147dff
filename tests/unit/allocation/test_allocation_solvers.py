"""Choosing offers: hulls, the knapsack, exact repair, and the choice over time."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scout_core.allocation.horizon import select_offers_over_time, spare_bytes
from scout_core.allocation.hull import floors, hull_steps
from scout_core.allocation.knapsack import pack, select_offers
from scout_core.allocation.problem import UNSERVED, chosen
from scout_core.errors import RequestError
from tests.support.allocation_cases import best_by_enumeration, problem, random_small


def test_dominated_offers_and_those_under_the_hull_are_no_steps() -> None:
    # 0 → 3 is the hull; 1 costs more than 3 for less, 2 lies under the line.
    load = np.array([[1.0, 11.0, 5.0, 10.0]])
    value = np.array([[0.1, 0.8, 0.3, 0.9]])
    steps = hull_steps(load, value)
    assert steps.floor.tolist() == [0]
    assert steps.target.tolist() == [3]


def test_the_floor_is_the_most_valuable_of_the_cheapest() -> None:
    assert floors(np.array([[2.0, 2.0, 3.0]]), np.array([[0.1, 0.4, 0.9]])).tolist() == [1]


def test_a_request_without_a_feasible_offer_has_no_floor_and_stays_unserved() -> None:
    stuck = problem([[5.0, 9.0], [1.0, 2.0]], [[0.5, 0.9], [0.5, 0.9]], 4.0)
    selection = select_offers(stuck)
    assert selection.choice.tolist() == [UNSERVED, 1]


def test_steps_of_one_request_come_in_order_even_on_one_line() -> None:
    load = np.array([[0.1, 0.2, 0.30000000000000004, 0.7]])
    value = np.array([[0.1, 0.2, 0.3, 0.7]])
    steps = hull_steps(load, value)
    assert np.all(np.diff(steps.slope) <= 0)
    assert np.all(np.diff(load[0, steps.target]) > 0)


def test_greedy_alone_would_miss_what_the_repair_finds() -> None:
    # The steepest step (value 6 for 5) leaves 5 of 10 unused; 10 for 10 is better.
    selection = pack(np.array([[0.0, 5.0], [0.0, 10.0]]), np.array([[0.0, 6.0], [0.0, 10.0]]), 10.0)
    assert selection.value == 10.0
    assert selection.exact


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10**6), load=st.sampled_from([0.8, 1.2, 2.0, 5.0, 20.0]))
def test_small_problems_are_solved_to_the_optimum(seed: int, load: float) -> None:
    small = random_small(seed, 4, 4, load)
    rates = small.required_rates()
    selection = select_offers(small)
    best = best_by_enumeration(rates, small.value, small.capacity_bytes_per_s)
    usable = np.isfinite(rates).any(axis=1)
    if usable.all():
        assert selection.value == pytest.approx(best, abs=1e-9)
    assert chosen(rates, selection.choice).sum() <= small.capacity_bytes_per_s * (1 + 1e-6)
    assert selection.value <= selection.bound + 1e-9


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_integer_loads_agree_with_dynamic_programming(seed: int) -> None:
    rng = np.random.default_rng(seed)
    load = rng.integers(0, 30, (20, 5)).astype(np.float64)
    load[:, 0] = 0
    value = rng.uniform(0, 1, (20, 5))
    limit = int(rng.integers(20, 200))
    assert pack(load, value, float(limit)).value == pytest.approx(_by_dp(load, value, limit))


def _by_dp(load: np.ndarray, value: np.ndarray, limit: int) -> float:
    best = np.zeros(limit + 1)
    for sizes, worth in zip(load.astype(int), value, strict=True):
        options = [
            np.concatenate((np.full(size, -np.inf), best[: limit + 1 - size])) + gain
            for size, gain in zip(sizes, worth, strict=True)
            if size <= limit
        ]
        best = np.max(options, axis=0)
    return float(best.max())


def test_nobody_is_left_out_while_the_floors_fit() -> None:
    # Leaving the second out would be worth more; the floor is for all.
    selection = pack(np.array([[1.0, 10.0], [1.0, 9.0]]), np.array([[0.1, 5.0], [0.1, 0.2]]), 10.5)
    assert UNSERVED not in selection.choice


def test_if_the_floors_do_not_fit_the_one_with_least_to_lose_is_left_out() -> None:
    selection = pack(np.array([[4.0], [4.0], [4.0]]), np.array([[0.9], [0.2], [0.8]]), 9.0)
    assert selection.choice.tolist() == [0, UNSERVED, 0]


def test_offers_beyond_the_agents_own_limit_are_not_chosen() -> None:
    slow = problem([[1.0, 8.0]], [[0.5, 1.0]], 100.0, limit=5.0)
    assert select_offers(slow).choice.tolist() == [0]


def test_no_requests_is_a_problem_too() -> None:
    empty = np.zeros((0, 3))
    assert pack(empty, empty, 1.0).value == 0.0


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(RequestError, match="finite"):
        problem([[1.0]], [[float("nan")]], 1.0)


def test_two_transfers_after_each_other_fit_where_constant_rates_do_not() -> None:
    # 1 MB due in 1 s and 1 MB due in 2 s on 1 MB/s: Eq. 5 needs 1.5 MB/s.
    staggered = problem(
        [[0.001, 1.0], [0.001, 1.0]], [[0.5, 1.0], [0.5, 1.0]], 1.0, [[1.0, 1.0], [2.0, 2.0]]
    )
    assert select_offers(staggered).value == pytest.approx(1.5)
    assert select_offers_over_time(staggered).value == pytest.approx(2.0)


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10**6), load=st.sampled_from([1.5, 3.0, 10.0]))
def test_the_choice_over_time_is_feasible_and_never_worse_than_constant_rates(
    seed: int, load: float
) -> None:
    small = random_small(seed, 6, 4, load)
    varied = select_offers_over_time(small)
    assert varied.value >= select_offers(small).value - 1e-12
    served = varied.choice >= 0
    _, spare = spare_bytes(
        chosen(small.payload_bytes, varied.choice)[served],
        chosen(small.window_s, varied.choice)[served],
        small.rate_limit_bytes_per_s[served],
        small.capacity_bytes_per_s,
    )
    assert np.all(spare >= -1e-6)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_over_time_comes_close_to_every_combination(seed: int) -> None:
    small = random_small(seed, 4, 3, 4.0)
    found = select_offers_over_time(small).value
    best = 0.0
    for choice in itertools.product(range(-1, 3), repeat=4):
        columns = np.array(choice)
        served = columns >= 0
        if not served.any():
            continue
        _, spare = spare_bytes(
            chosen(small.payload_bytes, columns)[served],
            chosen(small.window_s, columns)[served],
            small.rate_limit_bytes_per_s[served],
            small.capacity_bytes_per_s,
        )
        if np.all(spare >= -1e-9):
            best = max(best, float(chosen(small.value, columns).sum()))
    # A greedy with local changes, on four requests: whole steps are coarse there.
    assert found >= 0.6 * best


def test_spare_bytes_count_what_a_slow_agent_must_send_early() -> None:
    # 8 bytes by 10 s at no more than 1 byte/s must begin at 2 s: 3 bytes by 5 s.
    payload, window_s = np.array([8.0, 4.0]), np.array([10.0, 5.0])
    limit = np.array([1.0, np.inf])
    at_s, spare = spare_bytes(payload, window_s, limit, 2.0)
    assert at_s.tolist() == [5.0, 10.0]
    assert spare.tolist() == [2.0 * 5 - 4 - 3, 2.0 * 10 - 4 - 8]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_spare_bytes_equal_their_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    payload, window_s = rng.uniform(0.1, 3, 9), rng.uniform(1, 5, 9)
    limit = np.where(rng.uniform(size=9) < 0.5, np.inf, payload / window_s + rng.uniform(0, 1, 9))
    at_s, spare = spare_bytes(payload, window_s, limit, 4.0)
    for instant, left in zip(at_s, spare, strict=True):
        # An agent faster than the uplink is as good as unlimited.
        reach = np.where(limit < 4.0, limit, np.inf)
        ahead = np.maximum(window_s - instant, 0.0)
        later = np.where(ahead > 0, reach * np.where(ahead > 0, ahead, 1.0), 0.0)
        must = np.maximum(payload - later, 0.0).sum()
        assert left == pytest.approx(4.0 * instant - must, abs=1e-9)

"""The margin that choices leave: who may use it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scout_core.allocation.horizon import select_offers_over_time
from scout_core.allocation.margin import KeptOffers, needed_bytes_per_s, select_keeping
from scout_core.allocation.problem import AllocationProblem, IntArray
from tests.support.allocation_cases import problem, random_small

KV, TOKENS = 0, 1
SIZES, VALUES = [100.0, 1.0], [0.9, 0.5]


def granted(*columns: int) -> IntArray:
    return np.array(columns, dtype=np.int64)


def choose(given_problem: AllocationProblem, columns: IntArray, carried: float) -> list[int]:
    kept = KeptOffers(columns, carried)
    return select_keeping(given_problem, kept, select_offers_over_time).choice.tolist()


def test_who_would_lose_much_keeps_what_it_has_as_long_as_the_margin_carries_it() -> None:
    two = problem([SIZES] * 2, [VALUES] * 2, capacity=197.0)
    assert choose(two, granted(KV, KV), carried=197.0).count(TOKENS) == 1
    assert choose(two, granted(KV, KV), carried=201.0) == [KV, KV]
    assert choose(two, granted(KV, KV), carried=199.0).count(TOKENS) == 1


def test_nothing_better_is_chosen_in_the_margin() -> None:
    two = problem([SIZES] * 2, [VALUES] * 2, capacity=197.0)
    assert choose(two, granted(KV, TOKENS), carried=220.0) == [KV, TOKENS]
    assert choose(two, granted(KV, -1), carried=220.0) == [KV, TOKENS]


def test_a_small_loss_is_taken_before_the_margin() -> None:
    sizes, values = [200.0, 100.0, 1.0], [0.97, 0.9, 0.5]
    two = problem([sizes] * 2, [values] * 2, capacity=250.0)
    assert choose(two, granted(0, 0), carried=450.0) == [1, 1]


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**6), load=st.floats(0.5, 4.0))
def test_what_is_needed_is_just_enough(seed: int, load: float) -> None:
    case = random_small(seed, 5, 3, load)
    choice = np.zeros(5, dtype=np.int64)
    needed = needed_bytes_per_s(case, choice)
    by_deadline = [
        float(case.payload_bytes[case.window_s[:, 0] <= at_s, 0].sum()) / at_s
        for at_s in (1.0, 2.0, 4.0)
    ]
    assert needed == pytest.approx(max(by_deadline))
    assert needed_bytes_per_s(case, np.full(5, -1)) == 0.0

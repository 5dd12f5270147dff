"""From chosen offers to rates: ours and the baselines."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scout_core.allocation.baselines import Baseline, sharing_rule
from scout_core.allocation.flows import Flows, pour_in_order, pour_level
from scout_core.allocation.sharing import SharingPolicy, share_capacity
from scout_core.errors import SettingsError

PLAIN = SharingPolicy(guarantee_bytes_per_s=0.0)
STEP_S = 0.02
"""Between two solves of a fluid link."""


def flows(
    remaining: list[float],
    window_s: list[float],
    *,
    ready: list[bool] | None = None,
    late: list[bool] | None = None,
    limit: list[float] | None = None,
) -> Flows:
    count = len(remaining)
    return Flows(
        np.array(remaining, dtype=np.float64),
        np.zeros(count, dtype=np.bool_),
        np.array(window_s, dtype=np.float64),
        np.array(window_s, dtype=np.float64),
        np.array([True] * count if ready is None else ready),
        np.array([False] * count if late is None else late),
        np.arange(count, dtype=np.float64),
        np.array([np.inf] * count if limit is None else limit),
        0.0,
    )


def random_flows(seed: int) -> Flows:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 12))
    window_s = rng.uniform(-0.5, 3.0, count)
    return Flows(
        rng.uniform(0, 1e6, count) * (rng.uniform(size=count) < 0.9),
        np.zeros(count, dtype=np.bool_),
        window_s,
        window_s + rng.uniform(0, 0.5, count),
        rng.uniform(size=count) < 0.8,
        rng.uniform(size=count) < 0.2,
        rng.uniform(0, 10, count),
        np.where(rng.uniform(size=count) < 0.5, np.inf, rng.uniform(1e3, 1e6, count)),
        0.0,
    )


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 10**6), capacity=st.floats(0, 3e6))
def test_no_rule_gives_more_than_the_capacity_or_a_limit(seed: int, capacity: float) -> None:
    sent = random_flows(seed)
    rules = [sharing_rule(baseline) for baseline in Baseline]
    rules.append(lambda some, total: share_capacity(some, total, SharingPolicy()))
    for rule in rules:
        rates = rule(sent, capacity)
        assert rates.sum() <= capacity * (1 + 1e-9) + 1e-9
        assert np.all(rates >= 0)
        assert np.all(rates <= sent.limit_bytes_per_s * (1 + 1e-9))
        assert np.all(rates[~sent.active] == 0)


def test_the_earliest_due_is_served_first_though_constant_rates_fit() -> None:
    rates = share_capacity(flows([100.0, 100.0], [1.0, 2.0]), 300.0, PLAIN)
    assert rates.tolist() == [300.0, 0.0]


def test_an_agent_on_a_slower_link_gets_its_constant_rate_where_those_fit() -> None:
    rates = share_capacity(flows([100.0, 100.0], [1.0, 2.0], limit=[1e9, 200.0]), 300.0, PLAIN)
    assert rates.tolist() == [250.0, 50.0]


def completions(
    size_bytes: list[float], due_s: list[float], capacity: float, leaves_s: float = float("inf")
) -> list[float]:
    """When each transfer is complete if the last one gives up its claim at ``leaves_s``."""
    left, done = np.array(size_bytes), np.full(len(size_bytes), np.inf)
    for step in range(round(max(due_s) / STEP_S)):
        now = step * STEP_S
        if now >= leaves_s:
            left[-1] = 0.0
        sent = flows(left.tolist(), (np.array(due_s) - now).tolist())
        rates = share_capacity(sent, capacity, PLAIN)
        with np.errstate(divide="ignore", invalid="ignore"):
            ends_s = now + left / rates
        left = left - rates * STEP_S
        done = np.where(np.isinf(done) & (left <= 1e-6) & (rates > 0), ends_s, done)
    return done[:-1].tolist()


@settings(max_examples=60, deadline=None)
@given(
    size_bytes=st.lists(st.floats(1_000, 120_000), min_size=3, max_size=8),
    late_s=st.lists(st.floats(0.0, 0.5), min_size=8, max_size=8),
    leaves_s=st.floats(0.0, 2.0),
)
@example([105_790.0] * 8, [0.3 * at for at in range(8)], 0.08)
def test_nobody_is_served_later_because_another_gives_up_its_claim(
    size_bytes: list[float], late_s: list[float], leaves_s: float
) -> None:
    capacity = 200_000.0
    slack_s = np.sort(late_s[: len(size_bytes)])
    due_s = (1.05 * np.cumsum(size_bytes) / capacity + slack_s + 2 * STEP_S).tolist()
    stays = completions(size_bytes, due_s, capacity)
    leaves = completions(size_bytes, due_s, capacity, leaves_s)
    assert max(np.array(leaves) - np.array(stays)) <= 2 * STEP_S


def test_turns_are_by_due_time_then_arrival_and_late_ones_come_last() -> None:
    sent = flows([1.0] * 4, [2.0, 1.0004, 1.0, 0.5], late=[False, False, False, True])
    assert sent.turns().tolist() == [2, 0, 1, 3]


@given(now=st.floats(0, 1e6), left_s=st.floats(0.01, 100))
def test_turns_of_equal_deadlines_do_not_depend_on_when_they_are_looked_at(
    now: float, left_s: float
) -> None:
    sent = replace(flows([1.0] * 3, [0.0] * 3), due_at_s=np.full(3, now) + left_s, now=now)
    assert sent.turns().tolist() == [0, 1, 2]


def test_leftover_moves_on_when_the_earliest_is_at_its_limit() -> None:
    rates = share_capacity(flows([100.0, 100.0], [1.0, 2.0], limit=[120.0, 1e9]), 300.0, PLAIN)
    assert rates.tolist() == [120.0, 180.0]


def test_when_constant_rates_do_not_fit_the_earliest_deadline_goes_first() -> None:
    rates = share_capacity(flows([100.0, 100.0], [1.0, 2.0]), 100.0, PLAIN)
    assert rates.tolist() == [100.0, 0.0]


def test_a_slow_agent_that_cannot_wait_is_not_made_to() -> None:
    # The second must run at its limit of 50 from now on; the first is due earlier.
    rates = share_capacity(flows([100.0, 100.0], [1.0, 2.0], limit=[1e9, 50.0]), 120.0, PLAIN)
    assert rates[1] == pytest.approx(50.0)
    assert rates.sum() == pytest.approx(120.0)


def test_a_computing_edge_lends_its_share() -> None:
    rates = share_capacity(flows([100.0, 100.0], [1.0, 1.0], ready=[False, True]), 200.0, PLAIN)
    assert rates.tolist() == [0.0, 200.0]


def test_a_late_transfer_gets_its_guarantee_and_what_others_leave() -> None:
    policy = SharingPolicy(guarantee_bytes_per_s=5.0)
    late = flows([1000.0, 100.0], [-1.0, 1.0], late=[True, False], limit=[1e9, 150.0])
    assert share_capacity(late, 100.0, policy).tolist() == [5.0, 95.0]
    assert share_capacity(late, 200.0, policy).tolist() == [50.0, 150.0]


def test_nothing_is_granted_that_would_finish_within_less_than_a_message() -> None:
    policy = SharingPolicy(guarantee_bytes_per_s=0.0, quantum_s=0.01)
    assert share_capacity(flows([10.0], [1.0]), 1e6, policy).tolist() == [1000.0]


def test_the_last_bytes_before_a_deadline_are_not_slowed() -> None:
    policy = SharingPolicy(guarantee_bytes_per_s=0.0, quantum_s=0.01)
    assert share_capacity(flows([10.0], [0.002]), 1e6, policy).tolist() == [5000.0]


def test_guarantees_together_take_only_their_part() -> None:
    policy = SharingPolicy(guarantee_bytes_per_s=100.0, guarantee_fraction=0.1)
    late = flows([1e6] * 4, [-1.0] * 4, late=[True] * 4)
    rates = share_capacity(late, 100.0, policy)
    assert rates.min() == pytest.approx(2.5)


def test_baselines_share_as_their_names_say() -> None:
    sent = flows([300.0, 100.0], [2.0, 1.0])
    shares = {rule: sharing_rule(rule)(sent, 100.0).tolist() for rule in Baseline}
    assert shares == {
        Baseline.EQUAL_SHARE: [50.0, 50.0],
        Baseline.PROPORTIONAL: [75.0, 25.0],
        Baseline.EDF: [0.0, 100.0],
        Baseline.MAX_MIN: [50.0, 50.0],
        Baseline.FCFS: [100.0, 0.0],
    }


def test_max_min_fills_small_demands_first() -> None:
    sent = flows([10.0, 300.0], [1.0, 1.0])
    assert sharing_rule(Baseline.MAX_MIN)(sent, 100.0).tolist() == [10.0, 90.0]


@settings(max_examples=100, deadline=None)
@given(limits=st.lists(st.floats(0, 100) | st.just(np.inf), max_size=8), amount=st.floats(0, 300))
def test_pouring_level_is_max_min_fair(limits: list[float], amount: float) -> None:
    bounds = np.array(limits, dtype=np.float64)
    poured = pour_level(bounds, amount)
    assert poured.sum() == pytest.approx(min(amount, bounds.sum()), abs=1e-6)
    unfilled = poured < bounds - 1e-9
    if unfilled.any():
        assert poured[unfilled].min() >= poured.max() - 1e-6


def test_pouring_in_order_fills_the_smallest_key_first() -> None:
    assert pour_in_order(np.array([5.0, 5.0, 5.0]), np.array([2.0, 0.0, 1.0]), 7.0).tolist() == [
        0.0,
        5.0,
        2.0,
    ]


def test_a_guarantee_of_everything_is_refused() -> None:
    with pytest.raises(SettingsError):
        SharingPolicy(guarantee_fraction=1.0)

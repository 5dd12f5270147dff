"""Rows, ratios and cells from outcomes with known sums."""

from __future__ import annotations

import numpy as np
import pytest

from scout_core.evaluation.policy_simulation import Outcome
from scout_core.evaluation.policy_summary import (
    LinkOutcomes,
    cells,
    ratio_interval,
    ratios,
    rows,
)
from scout_core.modes import Mode


def outcome(quality: float, ttft_s: float) -> Outcome:
    return Outcome(1.0, 170, Mode.SCOUT, 1.0, quality, ttft_s, 100.0, 1.0, 0, 0.0)


def results() -> list[LinkOutcomes]:
    served = {
        "oracle": [outcome(1.0, 0.5), outcome(0.9, 0.9)],
        "ours": [outcome(0.9, 0.5), outcome(0.9, 0.9)],
        "fixed:scout": [outcome(0.8, 0.5), outcome(0.8, 0.5)],
        "fixed:kv_bf16": [outcome(1.0, 0.5), outcome(1.0, 1.5)],
        "tokens": [outcome(1.0, 2.0), outcome(1.0, 2.0)],
    }
    return [
        LinkOutcomes(policy, "pair", "LTE", link, tuple(outcomes))
        for policy, outcomes in served.items()
        for link in ("a", "b", "c")
    ]


def test_utility_counts_quality_only_in_time() -> None:
    (row,) = [row for row in rows(results()) if row.policy == "fixed:kv_bf16"]
    assert row.requests == 6
    assert row.compliance == 0.5
    assert row.quality == 1.0
    assert row.utility == 0.5
    assert row.ttft_p50_s == pytest.approx(1.0)


def test_ratios_are_of_sums_over_the_same_links() -> None:
    every = ratios(results())
    found = {(ratio.policy, ratio.tech_class): ratio for ratio in every if ratio.pair == "pair"}
    assert {ratio.pair for ratio in every} == {"pair", "all"}
    assert found["ours", "all"].utility_ratio == pytest.approx(1.8 / 1.9)
    assert found["ours", "LTE"].compliance_ratio == 1.0
    assert found["tokens", "all"].utility_ratio == 0.0


def test_a_cell_names_the_best_fixed_mode() -> None:
    (cell,) = cells(results())
    assert (cell.best_fixed_policy, cell.best_fixed) == ("fixed:scout", pytest.approx(0.8))
    assert cell.ours == pytest.approx(0.9)
    assert cell.reached
    assert cell.margin_low == pytest.approx(0.1)


def test_intervals_cover_the_ratio_and_shrink_to_it_without_spread() -> None:
    random = np.random.default_rng(1)
    same = np.full(20, 0.7)
    assert ratio_interval(same, np.ones(20), random) == pytest.approx((0.7, 0.7))
    spread = random.uniform(0.0, 1.0, 50)
    low, high = ratio_interval(spread, np.ones(50), random)
    assert low < spread.mean() < high
    assert high - low < 0.3

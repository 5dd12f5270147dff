"""References, metrics, the study, the bench and their commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from scout_core.allocation.horizon import select_offers_over_time
from scout_core.cli.bench_allocator import command as bench_command
from scout_core.cli.eval_allocation import command as eval_command
from scout_core.evaluation.allocation_bench import random_problem, run_bench
from scout_core.evaluation.allocation_reference import (
    clairvoyant_optimum,
    knapsack_optimum,
    over_time_optimum,
)
from scout_core.evaluation.allocation_study import (
    NAMED,
    Allocator,
    jain_index,
    mean_interval,
    paper_case,
    run_cell,
    wilson,
)
from scout_core.evaluation.allocation_workload import (
    Arrivals,
    CapacityKind,
    Mix,
    Scenario,
    build,
)
from tests.support.allocation_cases import best_by_enumeration, random_small


@pytest.mark.parametrize("seed", range(6))
def test_the_reference_agrees_with_enumeration(seed: int) -> None:
    small = random_small(seed, 4, 3, 3.0)
    rates = small.required_rates()
    best = best_by_enumeration(rates, small.value, small.capacity_bytes_per_s)
    optimum = knapsack_optimum(rates, small.value, small.capacity_bytes_per_s)
    assert optimum.proven
    assert optimum.value == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_the_choice_over_time_never_exceeds_its_reference(seed: int) -> None:
    small = random_small(seed, 8, 4, 4.0)
    found, best = select_offers_over_time(small).value, over_time_optimum(small)
    assert found <= best.bound + 1e-6
    assert found >= 0.9 * best.value


def test_who_knows_everything_serves_one_request_with_its_best_offer() -> None:
    easy = build(Scenario(1, 0.5, Mix.HOMOGENEOUS, Arrivals.POISSON, CapacityKind.TRACE, 2, 1))
    best = clairvoyant_optimum(easy)
    assert best.optimum.proven
    assert best.offer.tolist() == [0, 0]


def test_the_papers_case_equal_share_fails_and_ours_is_the_optimum() -> None:
    allocators = (Allocator.EQUAL_SHARE, Allocator.OURS, Allocator.OPTIMUM)
    rows = paper_case(allocators, rounds=2)
    for row in rows:
        expected = 0.0 if row.allocator == "equal_share" else 1.0
        assert row.compliance == expected
        if row.allocator == "ours" and row.optimum_ratio is not None:
            assert row.optimum_ratio >= 0.9999


def test_ours_is_above_every_baseline_under_congestion() -> None:
    cell = Scenario(6, 10.0, Mix.MIXED, Arrivals.POISSON, CapacityKind.CONSTANT, 3, 2)
    rows = {row.allocator: row for row in run_cell(cell, NAMED, repetitions=2)}
    ours = rows.pop("ours")
    rows.pop("optimum", None)
    assert all(ours.utility > row.utility for row in rows.values())
    assert ours.compliance == 1.0


def test_transfers_that_are_just_in_time_are_not_given_up_at_the_last_instant() -> None:
    # Sixteen that fill the uplink to the last byte and are all due at the same instant.
    cell = Scenario(16, 5.0, Mix.HOMOGENEOUS, Arrivals.SYNCHRONISED, CapacityKind.CONSTANT, 2, 0)
    (ours,) = run_cell(cell, (Allocator.OURS,), repetitions=1)
    assert ours.compliance == 1.0


def test_jain_is_one_if_all_are_equal_and_one_nth_if_one_has_everything() -> None:
    agents = np.array([0, 1, 2, 3])
    assert jain_index(np.ones(4), agents) == pytest.approx(1.0)
    assert jain_index(np.array([1.0, 0.0, 0.0, 0.0]), agents) == pytest.approx(0.25)
    assert jain_index(np.zeros(4), agents) == 0.0


def test_intervals_have_their_textbook_values() -> None:
    # Wilson 1927 for 10 of 10: lower end 1 / (1 + z²/n).
    assert wilson(10, 10).low == pytest.approx(1 / (1 + 1.959964**2 / 10))
    assert wilson(10, 10).high == pytest.approx(1.0)
    spread = mean_interval(np.array([0.0, 1.0, 0.0, 1.0]))
    half = 1.959964 * np.sqrt(1 / 3) / 2
    assert (spread.low, spread.high) == pytest.approx((0.5 - half, 0.5 + half))


def test_the_bench_compares_with_the_optimum_and_with_the_bound() -> None:
    rows = run_bench((8, 200), 6, lambda _: None)
    assert [row.reference for row in rows] == ["optimum", "lp_bound"]
    assert rows[0].optimum_ratio == pytest.approx(1.0, abs=1e-6)
    assert 0.99 < rows[1].optimum_ratio <= 1.0


def test_ten_thousand_agents_come_within_a_ten_thousandth_of_the_bound() -> None:
    (row,) = run_bench((10_000,), 3, lambda _: None)
    assert row.optimum_ratio >= 0.9999


def test_instances_repeat_with_their_seed() -> None:
    first, second = random_problem(5, 3.0, 1), random_problem(5, 3.0, 1)
    assert np.array_equal(first.payload_bytes, second.payload_bytes)
    assert first.capacity_bytes_per_s == second.capacity_bytes_per_s


def test_the_bench_command_prints_one_document() -> None:
    result = CliRunner().invoke(bench_command, ["--sizes", "8", "--instances", "2", "--json"])
    assert result.exit_code == 0
    (row,) = json.loads(result.stdout)["rows"]
    assert {"n_agents", "ms_p50", "ms_p99", "optimum_ratio"} <= set(row)


def test_the_study_command_prints_rows_and_draws(tmp_path: Path) -> None:
    options = ["--agents", "1,2", "--loads", "2", "--requests", "4", "--json"]
    result = CliRunner().invoke(eval_command, [*options, "--plots", str(tmp_path)])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert {row["allocator"] for row in document["rows"]} == {item.value for item in NAMED}
    keys = {"n_agents", "load", "capacity", "compliance", "quality", "utility", "jain_index"}
    assert keys | {"optimum_ratio"} <= set(document["rows"][0])
    for name in document["plots"]:
        assert Path(name).read_bytes().startswith(b"\x89PNG")


def test_numbers_that_are_none_are_refused_with_a_sentence() -> None:
    result = CliRunner().invoke(bench_command, ["--sizes", "many"])
    assert result.exit_code == 2
    assert "whole numbers" in result.output

"""How fast and how good one solve is: the measurement behind ``scout bench allocator``.

This module owns the random instances and the two figures, milliseconds and value over the exact
optimum (or the bound of the linear relaxation where exact is out of reach). It does not know
virtual time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np

from scout_core.allocation.horizon import select_offers_over_time
from scout_core.allocation.knapsack import select_offers
from scout_core.allocation.problem import AllocationProblem
from scout_core.evaluation.allocation_reference import knapsack_optimum

SIZES: Final = (8, 100, 1_000, 10_000)
EXACT_SIZE: Final = 100
"""Up to so many agents the reference is HiGHS' proven optimum, beyond the bound of the linear
relaxation, which is at least the optimum."""
OFFERS: Final = 8
LOADS: Final = (1.2, 3.0, 10.0, 30.0, 100.0, 300.0)
"""Demand over capacity; the last leaves some floors out."""
OVER_TIME_SIZE: Final = 1_000


@dataclass(frozen=True, slots=True)
class BenchRow:
    """Figures of one size over all instances.

    Attributes:
        ms_p50, ms_p99, ms_max: of one solve of Eq. 5 (``select_offers``), wall clock.
        cpu_ms_p50, cpu_ms_p99: the same in time of this thread, which other load does not stretch.
        optimum_ratio, optimum_ratio_min: mean and worst value over the reference's.
        reference: ``optimum`` or ``lp_bound``.
        proven: part of the instances that we know to have solved exactly ourselves.
        over_time_ms_p50: thread time of ``select_offers_over_time``, up to ``OVER_TIME_SIZE``.
        over_time_gain: its value over that of Eq. 5, mean.
    """

    n_agents: int
    instances: int
    ms_p50: float
    ms_p99: float
    ms_max: float
    cpu_ms_p50: float
    cpu_ms_p99: float
    optimum_ratio: float
    optimum_ratio_min: float
    reference: str
    proven: float
    over_time_ms_p50: float | None
    over_time_gain: float | None


def random_problem(n_agents: int, load: float, seed: int) -> AllocationProblem:
    """Agents with log-normal payloads, concave qualities with noise, mixed deadlines and weights.

    The noise puts offers under the hull and makes some dominated, so that the greedy's gap shows.
    """
    rng = np.random.default_rng([seed, n_agents])
    shape = (n_agents, OFFERS)
    part = np.sort(rng.uniform(0.0, 1.0, shape) ** 3, axis=1)
    part[:, 0] = 1e-4
    payload = np.exp(rng.normal(13.0, 1.5, (n_agents, 1))) * part
    quality = 1 - (1 - part) ** rng.uniform(1.0, 6.0, (n_agents, 1)) + rng.normal(0, 0.02, shape)
    weight = rng.choice([0.25, 1.0, 1.0, 1.0, 4.0], (n_agents, 1))
    window_s = rng.choice([0.5, 1.0, 2.0, 5.0], (n_agents, 1)) - rng.uniform(0.0, 0.3, shape)
    capacity = float((payload / window_s).max(axis=1).sum()) / load
    return AllocationProblem(
        payload,
        weight * np.clip(quality, 0.05, 1.1),
        window_s,
        np.full(n_agents, np.inf),
        capacity,
    )


def run_bench(
    sizes: tuple[int, ...], instances: int, report: Callable[[str], None]
) -> list[BenchRow]:
    """One row per size; the instances go round the loads."""
    rows: list[BenchRow] = []
    for n_agents in sizes:
        rows.append(_measure(n_agents, instances))
        report(f"n = {n_agents}: {instances} instances")
    return rows


def _measure(n_agents: int, instances: int) -> BenchRow:
    exact = n_agents <= EXACT_SIZE
    wall_ms, cpu_ms, ratios, over_time_ms, gains = [], [], [], [], []
    proven = 0
    for seed in range(instances):
        problem = random_problem(n_agents, LOADS[seed % len(LOADS)], seed)
        started, begun = time.perf_counter(), time.thread_time()
        selection = select_offers(problem)
        wall_ms.append(1e3 * (time.perf_counter() - started))
        cpu_ms.append(1e3 * (time.thread_time() - begun))
        proven += selection.exact
        best = _optimum(problem) if exact else selection.bound
        ratios.append(selection.value / best)
        if n_agents <= OVER_TIME_SIZE:
            begun = time.thread_time()
            varied = select_offers_over_time(problem)
            over_time_ms.append(1e3 * (time.thread_time() - begun))
            gains.append(varied.value / selection.value)
    return BenchRow(
        n_agents=n_agents,
        instances=instances,
        ms_p50=float(np.median(wall_ms)),
        ms_p99=float(np.percentile(wall_ms, 99)),
        ms_max=max(wall_ms),
        cpu_ms_p50=float(np.median(cpu_ms)),
        cpu_ms_p99=float(np.percentile(cpu_ms, 99)),
        optimum_ratio=float(np.mean(ratios)),
        optimum_ratio_min=min(ratios),
        reference="optimum" if exact else "lp_bound",
        proven=proven / instances,
        over_time_ms_p50=float(np.median(over_time_ms)) if over_time_ms else None,
        over_time_gain=float(np.mean(gains)) if gains else None,
    )


def _optimum(problem: AllocationProblem) -> float:
    optimum = knapsack_optimum(
        problem.required_rates(), problem.value, problem.capacity_bytes_per_s
    )
    # Where HiGHS ran out of time its bound is the safe reference.
    return optimum.value if optimum.proven else optimum.bound


def as_documents(rows: list[BenchRow]) -> list[dict[str, object]]:
    """Rows as JSON objects."""
    return [asdict(row) for row in rows]

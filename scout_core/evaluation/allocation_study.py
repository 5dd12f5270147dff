"""The allocation study: every allocator on the same workloads, with intervals.

This module owns the grid, the metrics and the rows of ``scout eval allocation --json``. It does not
draw (``allocation_plot``) nor simulate. Utility is quality if the first token was in time, else 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from enum import Enum
from typing import Final, assert_never

import numpy as np
from numpy.typing import NDArray

from scout_core.allocation.baselines import Baseline
from scout_core.evaluation.allocation_contenders import (
    STUDY_POLICY,
    BaselineContender,
    SchedulerContender,
)
from scout_core.evaluation.allocation_reference import clairvoyant_optimum
from scout_core.evaluation.allocation_simulation import Contender, Outcome, play
from scout_core.evaluation.allocation_workload import (
    Arrivals,
    CapacityKind,
    Mix,
    Scenario,
    Workload,
    build,
)

AGENTS: Final = (1, 2, 4, 8, 16, 32, 128)
LOADS: Final = (0.5, 1.0, 2.0, 5.0, 20.0, 100.0)
"""Demand over capacity: from abundance to a hundredth of what everyone's best offer needs."""
PAPER_AGENTS: Final = (2, 4, 8, 16, 32)
PAPER_MBPS: Final = 100.0
"""One agent alone sends its whole bf16 cache (9.7 MB, 0.78 s) within the deadline of 1 s; two do
not: the smallest congestion there is. The paper's own rates are not given in a form we have."""
OPTIMUM_REQUESTS: Final = 24
"""Clairvoyant optima are computed for workloads of at most so many requests."""
OPTIMUM_LIMIT_S: Final = 10.0
Z_95: Final = 1.959964


class Allocator(Enum):
    """Who competes; the value is the name in tables and JSON."""

    EQUAL_SHARE = "equal_share"
    PROPORTIONAL = "proportional"
    EDF = "edf"
    MAX_MIN = "max_min"
    FCFS = "fcfs"
    OURS = "ours"
    OPTIMUM = "optimum"
    INFORMED = "equal_share_informed"
    """Equal share where every agent knows how many share the uplink: what a simple system does."""
    CONSTANT_RATE = "ours_constant_rate"
    """Ours restricted to Eq. 5 to the letter: one rate for each request until its deadline."""


NAMED: Final = tuple(
    allocator
    for allocator in Allocator
    if allocator not in (Allocator.INFORMED, Allocator.CONSTANT_RATE)
)


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % interval."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Row:
    """One allocator in one cell; ``optimum_ratio`` is its utility over the optimum's, if known."""

    allocator: str
    n_agents: int
    load: float
    capacity: str
    arrivals: str
    mix: str
    capacity_mbps: float
    requests: int
    compliance: float
    compliance_low: float
    compliance_high: float
    quality: float
    utility: float
    utility_low: float
    utility_high: float
    jain_index: float
    rejected: float
    optimum_ratio: float | None


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """What is run.

    Attributes:
        agents, loads: the grid.
        settings: (mix, arrivals, capacity) combinations.
        requests: about so many per cell and allocator, in all repetitions together.
        allocators: who competes.
        seed: of the first repetition.
        tokens_only: see ``Scenario``.
    """

    agents: tuple[int, ...] = AGENTS
    loads: tuple[float, ...] = LOADS
    settings: tuple[tuple[Mix, Arrivals, CapacityKind], ...] = (
        (Mix.HOMOGENEOUS, Arrivals.SYNCHRONISED, CapacityKind.CONSTANT),
        (Mix.MIXED, Arrivals.POISSON, CapacityKind.CONSTANT),
        (Mix.MIXED, Arrivals.POISSON, CapacityKind.TRACE),
    )
    requests: int = 96
    allocators: tuple[Allocator, ...] = NAMED
    seed: int = 0
    tokens_only: bool = False

    def cells(self) -> Iterator[Scenario]:
        """One scenario per cell: the first repetition."""
        for mix, arrivals, capacity in self.settings:
            for n_agents in self.agents:
                # Small groups ask several times in a row, so that requests overlap.
                rounds = max(2, min(6, OPTIMUM_REQUESTS // n_agents))
                for load in self.loads:
                    yield Scenario(
                        n_agents, load, mix, arrivals, capacity, rounds, self.seed, self.tokens_only
                    )

    def repetitions(self, cell: Scenario) -> int:
        """How often a cell is repeated with other seeds."""
        return max(1, round(self.requests / (cell.n_agents * cell.rounds)))


@dataclass(frozen=True, slots=True, eq=False)
class _Result:
    """All repetitions of one allocator in one cell, request by request."""

    quality: NDArray[np.float64]
    in_time: NDArray[np.bool_]
    answered: NDArray[np.bool_]
    rejected: NDArray[np.bool_]
    agent: NDArray[np.int64]

    @property
    def utility(self) -> NDArray[np.float64]:
        return np.where(self.in_time, self.quality, 0.0)


def run_study(plan: StudyPlan, report: Callable[[str], None]) -> list[Row]:
    """Every cell of the plan; ``report`` hears one line per cell."""
    rows: list[Row] = []
    cells = list(plan.cells())
    for number, cell in enumerate(cells, start=1):
        rows.extend(run_cell(cell, plan.allocators, plan.repetitions(cell)))
        report(
            f"{number}/{len(cells)} {cell.mix.value} {cell.arrivals.value} {cell.capacity.value} "
            f"n={cell.n_agents} load={cell.load:g}"
        )
    return rows


def paper_case(allocators: Iterable[Allocator], rounds: int = 12) -> list[Row]:
    """N agents with one question each on a congested uplink, 170 tokens, 3B → 7B, 1 s."""
    rows: list[Row] = []
    for n_agents in PAPER_AGENTS:
        scenario = Scenario(
            n_agents,
            1.0,
            Mix.HOMOGENEOUS,
            Arrivals.SYNCHRONISED,
            CapacityKind.CONSTANT,
            rounds=max(1, rounds // n_agents),
            seed=0,
            capacity_mbps=PAPER_MBPS,
        )
        rows.extend(run_cell(scenario, tuple(allocators), repetitions=1))
    return rows


def run_cell(cell: Scenario, allocators: tuple[Allocator, ...], repetitions: int) -> list[Row]:
    """All allocators on the same workloads of one cell."""
    workloads = [build(replace(cell, seed=cell.seed + number)) for number in range(repetitions)]
    results: dict[Allocator, _Result] = {}
    for allocator in allocators:
        result = _run(allocator, workloads)
        if result is not None:
            results[allocator] = result
    optimum = results.get(Allocator.OPTIMUM)
    best = None if optimum is None else float(optimum.utility.sum())
    return [_row(allocator, cell, workloads, result, best) for allocator, result in results.items()]


def _run(allocator: Allocator, workloads: list[Workload]) -> _Result | None:
    """None where the optimum is out of reach."""
    parts: list[_Result] = []
    for number, workload in enumerate(workloads):
        # Agents of different repetitions are different agents.
        agents = np.array([request.agent for request in workload.requests]) + number * 10_000
        if allocator is Allocator.OPTIMUM:
            part = _optimum(workload, agents)
        else:
            part = _played(workload, _contender(allocator, workload), agents)
        if part is None:
            return None
        parts.append(part)
    return _Result(
        np.concatenate([part.quality for part in parts]),
        np.concatenate([part.in_time for part in parts]),
        np.concatenate([part.answered for part in parts]),
        np.concatenate([part.rejected for part in parts]),
        np.concatenate([part.agent for part in parts]),
    )


def _contender(allocator: Allocator, workload: Workload) -> Contender:
    match allocator:
        case Allocator.OURS:
            return SchedulerContender(workload)
        case Allocator.CONSTANT_RATE:
            return SchedulerContender(workload, replace(STUDY_POLICY, orders_in_time=False))
        case Allocator.INFORMED:
            return BaselineContender(Baseline.EQUAL_SHARE, informed=True)
        case (
            Allocator.EQUAL_SHARE
            | Allocator.PROPORTIONAL
            | Allocator.EDF
            | Allocator.MAX_MIN
            | Allocator.FCFS
        ):
            return BaselineContender(Baseline(allocator.value))
        case Allocator.OPTIMUM:
            raise AssertionError("the optimum is computed, not played")
        case _:
            assert_never(allocator)


def _played(workload: Workload, contender: Contender, agents: NDArray[np.int64]) -> _Result:
    played = play(workload, contender)
    answered = np.array([outcome is Outcome.ANSWERED for outcome in played.outcome])
    rejected = np.array([outcome is Outcome.REJECTED for outcome in played.outcome])
    return _Result(played.quality, played.in_time, answered, rejected, agents)


def _optimum(workload: Workload, agents: NDArray[np.int64]) -> _Result | None:
    if len(workload.requests) > OPTIMUM_REQUESTS:
        return None
    best = clairvoyant_optimum(workload, OPTIMUM_LIMIT_S)
    if not best.optimum.proven:
        return None
    served = best.offer >= 0
    quality = np.array(
        [
            request.offers[offer].quality if offer >= 0 else 0.0
            for request, offer in zip(workload.requests, best.offer, strict=True)
        ]
    )
    return _Result(quality, served, served, ~served, agents)


def _row(
    allocator: Allocator,
    cell: Scenario,
    workloads: list[Workload],
    result: _Result,
    best: float | None,
) -> Row:
    utility = result.utility
    compliance, spread = (
        wilson(int(result.in_time.sum()), result.in_time.size),
        mean_interval(utility),
    )
    mean_bytes_per_s = float(np.mean([workload.mean_bytes_per_s for workload in workloads]))
    quality = result.quality[result.answered]
    return Row(
        allocator=allocator.value,
        n_agents=cell.n_agents,
        load=cell.load,
        capacity=cell.capacity.value,
        arrivals=cell.arrivals.value,
        mix=cell.mix.value,
        capacity_mbps=mean_bytes_per_s * 8 / 1e6,
        requests=utility.size,
        compliance=float(result.in_time.mean()),
        compliance_low=compliance.low,
        compliance_high=compliance.high,
        quality=float(quality.mean()) if quality.size else 0.0,
        utility=float(utility.mean()),
        utility_low=spread.low,
        utility_high=spread.high,
        jain_index=jain_index(utility, result.agent),
        rejected=float(result.rejected.mean()),
        optimum_ratio=float(utility.sum()) / best if best else None,
    )


def jain_index(utility: NDArray[np.float64], agent: NDArray[np.int64]) -> float:
    """Fairness of the agents' mean utilities: 1 if all are equal, 1/n if one has everything.

    Jain, Chiu and Hawe 1984. All zero counts as 0: nobody has anything.
    """
    _, index = np.unique(agent, return_inverse=True)
    means = np.bincount(index, utility) / np.bincount(index)
    squares = float((means**2).sum())
    return float(means.sum()) ** 2 / (means.size * squares) if squares > 0 else 0.0


def wilson(successes: int, trials: int) -> Interval:
    """95 % interval of a share; stays within [0, 1] also at 0 and all (Wilson 1927)."""
    share, z2 = successes / trials, Z_95**2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = Z_95 / (1 + z2 / trials) * np.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    return Interval(max(float(centre - half), 0.0), min(float(centre + half), 1.0))


def mean_interval(values: NDArray[np.float64]) -> Interval:
    """95 % interval of a mean by the normal approximation, requests taken as independent."""
    mean = float(values.mean())
    half = Z_95 * float(values.std(ddof=1)) / np.sqrt(values.size) if values.size > 1 else 0.0
    return Interval(mean - float(half), mean + float(half))


def by_setting(rows: Iterable[Row]) -> dict[tuple[str, str, str], list[Row]]:
    """Rows by (mix, arrivals, capacity), in the order of the study."""
    settings: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        settings.setdefault((row.mix, row.arrivals, row.capacity), []).append(row)
    return settings


def as_documents(rows: Iterable[Row]) -> list[dict[str, object]]:
    """Rows as JSON objects."""
    return [asdict(row) for row in rows]

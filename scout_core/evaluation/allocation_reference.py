"""Exact references for the allocator: mixed-integer programs solved by HiGHS.

This module owns three optima: of Eq. 5, of the choice over time, and of a whole workload known in
advance. It does not know our algorithms. scipy (extra ``evaluation``) brings HiGHS.

HiGHS 1.12 in scipy 1.17 prints debugging lines to file descriptor 1, past every option; they are
led to standard error, so that ``--json`` stays one document.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from scout_core.allocation.problem import AllocationProblem, FloatArray, IntArray
from scout_core.evaluation.allocation_workload import Workload
from scout_core.testbed.schedule import BITS_PER_BYTE

GAP: Final = 1e-7
TIME_LIMIT_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Optimum:
    """What HiGHS found.

    Attributes:
        value: of the best choice found.
        bound: no choice is worth more.
        proven: whether the two are equal within ``GAP``; else the time ran out.
    """

    value: float
    bound: float
    proven: bool


@dataclass(frozen=True, slots=True, eq=False)
class Clairvoyant:
    """The best that anyone could do who knew all arrivals and the capacity in advance.

    Attributes:
        optimum: of Σ quality over requests in time.
        offer: ``[requests]`` the offer taken; -1: none.
    """

    optimum: Optimum
    offer: IntArray


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    """Constraints ``lower ≤ Σ coefficient · x[column] ≤ upper``, one per row."""

    row: IntArray
    column: IntArray
    coefficient: FloatArray
    lower: FloatArray
    upper: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class _Program:
    """Maximise ``value · x`` for x in [0, 1]; the first ``binaries`` columns are 0 or 1."""

    value: FloatArray
    blocks: tuple[_Block, ...]
    binaries: int


def knapsack_optimum(load: FloatArray, value: FloatArray, limit: float) -> Optimum:
    """Eq. 5: one offer for everyone, or at most one if not even the cheapest fit together.

    Args:
        load: ``[requests, offers]``, inf where not feasible.
        value: ``[requests, offers]``.
        limit: largest sum of loads.
    """
    row, column = np.nonzero(np.isfinite(load))
    served = np.unique(row)
    floors = float(load[served].min(axis=1).sum()) if served.size else 0.0
    least = np.zeros(load.shape[0])
    if floors <= limit:
        least[served] = 1.0
    entries = np.arange(row.size)
    # In units of the limit: HiGHS' tolerances are absolute.
    weights = load[row, column] / limit
    together = _Block(np.zeros_like(row), entries, weights, np.zeros(1), np.ones(1))
    one_each = _Block(row, entries, np.ones(row.size), least, np.ones(load.shape[0]))
    return _solve(_Program(value[row, column], (one_each, together), row.size))[0]


def over_time_optimum(problem: AllocationProblem) -> Optimum:
    """The best choice whose bytes can all cross in time at rates that vary (see ``horizon``).

    Leaving requests out is allowed: an upper bound of what ``select_offers_over_time`` may find.
    """
    row, column = np.nonzero(np.isfinite(problem.required_rates()))
    payload, window_s = problem.payload_bytes[row, column], problem.window_s[row, column]
    limit = problem.rate_limit_bytes_per_s[row]
    at_s = np.unique(window_s)[:, None]
    with np.errstate(invalid="ignore"):
        later = np.where(at_s < window_s, limit * np.maximum(window_s - at_s, 0.0), 0.0)
    must = np.maximum(payload - later, 0.0) / (problem.capacity_bytes_per_s * at_s)
    instant, entry = np.nonzero(must)
    count = at_s.size
    in_time = _Block(instant, entry, must[instant, entry], np.zeros(count), np.ones(count))
    one_each = _at_most_one_each(row, problem.requests)
    return _solve(_Program(problem.value[row, column], (one_each, in_time), row.size))[0]


def clairvoyant_optimum(workload: Workload, time_limit_s: float = TIME_LIMIT_S) -> Clairvoyant:
    """Chooses offers and bytes per interval with the whole workload known in advance.

    Interval bounds are all instants at which an offer becomes ready or is due. Σ over offers in an
    interval is at most the integral of the capacity over it. It takes one offer for each request;
    an allocator that switches in mid-transfer may come out a few ten-thousandths above it.
    """
    offers = [
        (index, number, offer.payload_bytes, offer.quality, start_s, end_s)
        for index, request in enumerate(workload.requests)
        for number, offer in enumerate(request.offers)
        for start_s, end_s in (
            (request.arrival_s + offer.edge_s, request.deadline_at_s - offer.cloud_s),
        )
        if end_s > start_s
    ]
    if not offers:
        return Clairvoyant(Optimum(0.0, 0.0, True), np.full(len(workload.requests), -1))
    request, number = (np.array([entry[key] for entry in offers]) for key in (0, 1))
    payload, quality, start_s, end_s = (
        np.array([entry[key] for entry in offers]) for key in (2, 3, 4, 5)
    )
    bounds_s = np.unique(np.concatenate((start_s, end_s)))
    carried = np.array(
        [
            workload.uplink.bits_between(begin_s, finish_s) / BITS_PER_BYTE
            for begin_s, finish_s in pairwise(bounds_s)
        ]
    )
    within = (bounds_s[:-1] >= start_s[:, None]) & (bounds_s[1:] <= end_s[:, None])
    flow_offer, flow_interval = np.nonzero(within)
    program = _flow_program(
        (request, payload, quality), (flow_offer, flow_interval), carried, len(workload.requests)
    )
    optimum, taken = _solve(program, time_limit_s)
    choice = np.full(len(workload.requests), -1)
    for entry in np.flatnonzero(taken[: len(offers)] > 0.5):
        choice[request[entry]] = number[entry]
    return Clairvoyant(optimum, choice)


def _flow_program(
    offers: tuple[IntArray, FloatArray, FloatArray],
    flows: tuple[IntArray, IntArray],
    carried: FloatArray,
    requests: int,
) -> _Program:
    """Columns: one binary per offer, then the part of the offer's payload sent per interval."""
    (request, payload, quality), (flow_offer, flow_interval) = offers, flows
    count, parts = payload.size, flow_offer.size
    columns = np.arange(count + parts)
    # Σ of the parts of an offer is 1 if it is taken and 0 if not.
    whole = _Block(
        np.concatenate((columns[:count], flow_offer)),
        columns,
        np.concatenate((-np.ones(count), np.ones(parts))),
        np.zeros(count),
        np.zeros(count),
    )
    share = payload[flow_offer] / np.maximum(carried, 1e-9)[flow_interval]
    intervals = carried.size
    filled = _Block(flow_interval, columns[count:], share, np.zeros(intervals), np.ones(intervals))
    value = np.concatenate((quality, np.zeros(parts)))
    return _Program(value, (_at_most_one_each(request, requests), whole, filled), count)


def _at_most_one_each(row: IntArray, requests: int) -> _Block:
    entries = np.arange(row.size)
    return _Block(row, entries, np.ones(row.size), np.zeros(requests), np.ones(requests))


def _constraints(program: _Program) -> LinearConstraint:
    """All blocks under each other."""
    heights = [block.lower.size for block in program.blocks]
    starts = np.concatenate(([0], np.cumsum(heights)))
    rows = [block.row + start for block, start in zip(program.blocks, starts, strict=False)]
    matrix = sparse.csr_matrix(
        (
            np.concatenate([block.coefficient for block in program.blocks]),
            (np.concatenate(rows), np.concatenate([block.column for block in program.blocks])),
        ),
        shape=(int(starts[-1]), program.value.size),
    )
    lower = np.concatenate([block.lower for block in program.blocks])
    upper = np.concatenate([block.upper for block in program.blocks])
    return LinearConstraint(matrix, lower.tolist(), upper.tolist())


def _solve(program: _Program, time_limit_s: float = TIME_LIMIT_S) -> tuple[Optimum, FloatArray]:
    integrality = np.zeros(program.value.size)
    integrality[: program.binaries] = 1
    with _standard_output_to_error():
        result = milp(
            -program.value,
            constraints=_constraints(program),
            integrality=integrality,
            bounds=Bounds(0.0, 1.0),
            options={"mip_rel_gap": GAP, "time_limit": time_limit_s},
        )
    if result.x is None:
        return Optimum(0.0, float(program.value.sum()), False), np.zeros(program.value.size)
    bound = -float(result.fun if result.mip_dual_bound is None else result.mip_dual_bound)
    return Optimum(-float(result.fun), bound, result.status == 0), np.asarray(result.x)


@contextmanager
def _standard_output_to_error() -> Generator[None]:
    """Leads file descriptor 1 to 2 for a while, also for code that is not Python."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)

"""Tenants' minimum guarantees on top of any solver.

This module owns the two-stage solve: a guaranteed tenant is never worse off than it would be alone
on its share of the capacity, and beyond that it competes by weight like everyone else. It does not
know which solver runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from scout_core.allocation.problem import (
    UNSERVED,
    AllocationProblem,
    FloatArray,
    IntArray,
    Selection,
    chosen,
)

Solver = Callable[[AllocationProblem], Selection]


@dataclass(frozen=True, slots=True, eq=False)
class Guarantees:
    """Whose requests are guaranteed what.

    Attributes:
        tenant: ``[requests]`` index of the tenant.
        share: ``[tenants]`` fraction of the capacity, 0 without a guarantee.
    """

    tenant: IntArray
    share: FloatArray


def select_with_guarantees(
    problem: AllocationProblem, guarantees: Guarantees, solve: Solver
) -> Selection:
    """Like ``solve``, but every tenant gets at least what its share alone would give it."""
    shares = guarantees.share[guarantees.tenant]
    if not (shares > 0).any():
        return solve(problem)
    start = np.full(problem.requests, UNSERVED, dtype=np.int64)
    for index in np.flatnonzero(guarantees.share > 0):
        rows = np.flatnonzero(guarantees.tenant == index)
        if rows.size:
            own = _part(problem, rows, problem.capacity_bytes_per_s * guarantees.share[index])
            start[rows] = solve(own).choice
    secured = start >= 0
    at_least = chosen(problem.value, start)
    allowed = ~secured[:, None] | (problem.value >= at_least[:, None])
    together = solve(problem.restricted_to(allowed))
    if (together.choice[secured] >= 0).all():
        return together
    return _secured_first(problem, start, solve)


def _secured_first(problem: AllocationProblem, start: IntArray, solve: Solver) -> Selection:
    """The guaranteed choices as they are, everyone else on what they leave."""
    used = float(chosen(problem.required_rates(), start).sum())
    rows = np.flatnonzero(start == UNSERVED)
    rest = solve(_part(problem, rows, max(problem.capacity_bytes_per_s - used, 0.0)))
    choice = start.copy()
    choice[rows] = rest.choice
    value = float(chosen(problem.value, choice).sum())
    secured = value - rest.value
    return Selection(choice, value, secured + rest.bound, exact=False)


def _part(problem: AllocationProblem, rows: IntArray, capacity: float) -> AllocationProblem:
    return replace(
        problem,
        payload_bytes=problem.payload_bytes[rows],
        value=problem.value[rows],
        window_s=problem.window_s[rows],
        rate_limit_bytes_per_s=problem.rate_limit_bytes_per_s[rows],
        capacity_bytes_per_s=capacity,
    )

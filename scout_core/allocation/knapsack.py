"""Eq. 5 as a multiple-choice knapsack: constant rates, greedy on the hulls, exact repair.

This module owns the choice of offers when every request sends at one rate until its deadline. It
does not know leases, priorities or the order in time: values carry the weights already, and
``horizon`` takes over where the order in time admits more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from scout_core.allocation.hull import HullSteps, floors, hull_steps
from scout_core.allocation.problem import (
    TOLERANCE,
    UNSERVED,
    AllocationProblem,
    FloatArray,
    IntArray,
    Selection,
    chosen,
)
from scout_core.allocation.repair import BRIEF, THOROUGH, improve_to_optimum

GAP_MOVES: Final = 32
"""Single moves tried after the greedy; each costs one pass over the table."""
THOROUGH_REQUESTS: Final = 128
"""Up to so many requests the gap is closed exactly."""
BRIEF_REQUESTS: Final = 2_048
"""Up to so many requests the gap is searched briefly. Beyond, the greedy is already within 1e-5 of
its bound (``scout bench allocator``)."""


@dataclass(frozen=True, slots=True, eq=False)
class GreedyResult:
    """Where the greedy stopped.

    Attributes:
        choice: ``[requests]`` columns.
        bound: value of the linear relaxation, which no choice exceeds.
        price: value per load of the first step that did not fit; 0 if all steps did.
    """

    choice: IntArray
    bound: float
    price: float


def select_offers(problem: AllocationProblem) -> Selection:
    """The offers that maximise the value with Σ required rate ≤ capacity.

    If even the cheapest feasible offers exceed the capacity, some requests stay ``UNSERVED``: those
    whose loss costs the objective least. Requests without any feasible offer always do.
    """
    return pack(problem.required_rates(), problem.value, problem.capacity_bytes_per_s)


def pack(load: FloatArray, value: FloatArray, limit: float) -> Selection:
    """The multiple-choice knapsack itself: any load, one limit.

    Args:
        load: ``[requests, offers]``, ≥ 0, inf where not feasible.
        value: ``[requests, offers]``.
        limit: largest sum of chosen loads.
    """
    offers = load.shape[1]
    limit = limit * (1 + TOLERANCE)
    if float(chosen(load, floors(load, value)).sum()) > limit:
        # Not even the floors fit: leaving a request out becomes an offer of no load and no value.
        nothing = np.zeros((load.shape[0], 1))
        load, value = np.hstack((load, nothing)), np.hstack((value, nothing))
    greedy = fill_greedily(load, value, limit)
    choice, exact = greedy.choice, True
    if greedy.price > 0:
        choice, exact = _close_gap(load, value, limit, greedy)
    total = float(chosen(value, choice).sum())
    choice = np.where(choice == offers, UNSERVED, choice)
    return Selection(choice, total, max(greedy.bound, total), exact)


def _close_gap(
    load: FloatArray, value: FloatArray, limit: float, greedy: GreedyResult
) -> tuple[IntArray, bool]:
    """The best choice found near the greedy's, and whether it is known to be the optimum."""
    choice = fill_gap(load, value, limit, greedy.choice)
    requests = load.shape[0]
    if requests > BRIEF_REQUESTS:
        return choice, False
    effort = THOROUGH if requests <= THOROUGH_REQUESTS else BRIEF
    limits = (limit, greedy.price)
    return improve_to_optimum((load, value), limits, greedy.choice, choice, effort)


def fill_greedily(load: FloatArray, value: FloatArray, limit: float) -> GreedyResult:
    """Takes hull steps, the best value per load first, up to the first that does not fit.

    The floors must fit. The bound adds the fitting fraction of that step: for this problem that is
    the optimum of the linear relaxation.
    """
    steps = hull_steps(load, value)
    used = float(chosen(load, steps.floor).sum())
    base = float(chosen(value, steps.floor).sum())
    return _stop_at_limit(steps, limit - used, base)


def _stop_at_limit(steps: HullSteps, room: float, base: float) -> GreedyResult:
    reached = np.cumsum(steps.load)
    taken = int(np.searchsorted(reached, room, side="right"))
    gained = float(steps.gain[:taken].sum())
    if taken == steps.load.size:
        return GreedyResult(steps.choice_after(taken), base + gained, 0.0)
    rest = room - (float(reached[taken - 1]) if taken else 0.0)
    partial = float(steps.gain[taken]) * max(rest, 0.0) / float(steps.load[taken])
    price = float(steps.slope[taken])
    return GreedyResult(steps.choice_after(taken), base + gained + partial, price)


def fill_gap(
    load: FloatArray, value: FloatArray, limit: float, choice: IntArray, moves: int = GAP_MOVES
) -> IntArray:
    """Spends what the greedy left over: the single change with the largest gain, repeatedly.

    Unlike the greedy it looks at every offer, also those under the hull.
    """
    choice = choice.copy()
    for _ in range(moves):
        current_load, current_value = chosen(load, choice), chosen(value, choice)
        room = limit - float(current_load.sum())
        fits = load - current_load[:, None] <= room
        gain = np.where(fits & (choice >= 0)[:, None], value - current_value[:, None], 0.0)
        best = int(gain.argmax()) if gain.size else 0
        if not gain.size or gain.flat[best] <= 0:
            break
        row, column = divmod(best, load.shape[1])
        choice[row] = column
    return choice

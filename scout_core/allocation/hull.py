"""The upper convex hull of each request's (load, value) points, for all requests at once.

This module owns the geometry: which offers can be part of an optimum of the linear relaxation and
at what price. It does not know what a load is (a rate in ``knapsack``, bytes in ``horizon``).
Dominated offers (more load, no more value) and offers under the hull (a mix of two others beats
them) never become a step. Sinha and Zoltners 1979, "The multiple-choice knapsack problem".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scout_core.allocation.problem import UNSERVED, FloatArray, IntArray


@dataclass(frozen=True, slots=True, eq=False)
class HullSteps:
    """Every step up a hull, the best value per load first; steps of one request stay in order.

    Attributes:
        floor: ``[requests]`` the least load's column (the largest value among equals), or
            ``UNSERVED`` where no offer is feasible.
        request, target: ``[steps]`` whose step, and the column it leads to.
        load, gain, slope: ``[steps]`` additional load, additional value, value per load.
    """

    floor: IntArray
    request: IntArray
    target: IntArray
    load: FloatArray
    gain: FloatArray
    slope: FloatArray

    def choice_after(self, taken: int) -> IntArray:
        """``[requests]``: the choice when the first ``taken`` steps have been made."""
        choice = self.floor.copy()
        choice[self.request[:taken]] = self.target[:taken]
        return choice


def floors(load: FloatArray, value: FloatArray) -> IntArray:
    """``[requests]``: column of the least finite load, the most valuable among equals."""
    least = load.min(axis=1, initial=np.inf)
    best = np.where(load == least[:, None], value, -np.inf)
    columns = best.argmax(axis=1) if load.shape[1] else np.zeros(load.shape[0], dtype=np.int64)
    return np.where(np.isfinite(least), columns, UNSERVED).astype(np.int64)


def hull_steps(load: FloatArray, value: FloatArray) -> HullSteps:
    """Climbs every request's hull from its floor.

    Args:
        load: ``[requests, offers]``, ≥ 0, inf where the offer is not feasible.
        value: ``[requests, offers]``, finite.
    """
    floor = floors(load, value)
    rows = np.flatnonzero(floor >= 0)
    at = floor[rows]
    slope_limit = np.full(rows.size, np.inf)
    parts: list[tuple[IntArray, IntArray, FloatArray, FloatArray, FloatArray]] = []
    while rows.size:
        here = np.arange(rows.size)
        more_load = load[rows] - load[rows, at][:, None]
        more_value = value[rows] - value[rows, at][:, None]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            slopes = more_value / more_load
        slopes[(more_load <= 0) | (more_value <= 0)] = 0.0
        target = slopes.argmax(axis=1)
        # Rounding may make a later step of one line look steeper; the order must hold all the same.
        slope = np.minimum(slopes[here, target], slope_limit)
        climbs = slope > 0
        rows, at, slope_limit = rows[climbs], target[climbs], slope[climbs]
        here = here[climbs]
        parts.append((rows, at, more_load[here, at], more_value[here, at], slope_limit))
    return _sorted_steps(floor, parts)


def _sorted_steps(
    floor: IntArray, parts: list[tuple[IntArray, IntArray, FloatArray, FloatArray, FloatArray]]
) -> HullSteps:
    if not parts:
        none_int, none = np.zeros(0, dtype=np.int64), np.zeros(0)
        return HullSteps(floor, none_int, none_int, none, none, none)
    request, target, load, gain, slope = (
        np.concatenate(column) for column in zip(*parts, strict=True)
    )
    # Stable: of equal slopes the earlier step of a request comes first.
    order = np.argsort(-slope, kind="stable")
    return HullSteps(floor, request[order], target[order], load[order], gain[order], slope[order])

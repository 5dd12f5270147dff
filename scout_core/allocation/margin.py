"""Who may use the part of the capacity that choices leave unused: requests that would lose much.

A margin that every choice leaves alike buffers nothing: once deviations have used it up, a percent
too little makes a request give its whole KV up for indices, although the link could still carry it.
So better offers are chosen only where the margin is left beside them, but nobody who was granted
one loses more than a part of its value as long as the margin prevents it. This module owns that
rule; it knows neither how large the margin is nor how offers are chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from scout_core.allocation.horizon import spare_bytes
from scout_core.allocation.hull import floors
from scout_core.allocation.problem import (
    TOLERANCE,
    AllocationProblem,
    IntArray,
    Selection,
    chosen,
)

KEPT_VALUE: Final = 0.8
"""Of the value of what was granted: less than this is a loss that the margin is for. Codings of the
same KV are within a tenth of each other, indices can be worth half."""


@dataclass(frozen=True, slots=True, eq=False)
class KeptOffers:
    """What was granted before.

    Attributes:
        granted: ``[requests]`` the offers; ``UNSERVED`` of a request that has none.
        carried_bytes_per_s: what the uplink is counted on to carry for them, margin and all.
    """

    granted: IntArray
    carried_bytes_per_s: float


def select_keeping(
    problem: AllocationProblem,
    kept: KeptOffers,
    solve: Callable[[AllocationProblem], Selection],
) -> Selection:
    """Like ``solve`` on ``problem``, whose capacity leaves the margin out, but for one case: if
    nobody can keep what it was granted, or at least ``KEPT_VALUE`` of it, without some of the
    margin, and with it everybody can, it is solved with what that needs, and this is the least that
    comes out. New requests have no more than their floors in the margin.
    """
    choice = _least_kept(problem, kept)
    needed = needed_bytes_per_s(problem, choice)
    if not problem.capacity_bytes_per_s < needed <= kept.carried_bytes_per_s:
        return solve(problem)
    selection = solve(replace(problem, capacity_bytes_per_s=needed * (1 + TOLERANCE)))
    value = float(chosen(problem.value, choice).sum())
    if selection.value >= value:
        return selection
    return Selection(choice, value, max(selection.bound, value), exact=False)


def needed_bytes_per_s(problem: AllocationProblem, choice: IntArray) -> float:
    """The least capacity at which every chosen offer can be in time, at rates that vary; 0 if
    nothing is chosen. See ``horizon`` for the condition."""
    served = choice >= 0
    if not served.any():
        return 0.0
    load, window_s = chosen(problem.payload_bytes, choice), chosen(problem.window_s, choice)
    limit = problem.rate_limit_bytes_per_s
    # Ample: only what must cross by each instant is asked for.
    ample = float((load[served] / window_s[served]).sum())
    at_s, spare = spare_bytes(load[served], window_s[served], limit[served], ample)
    return ample - float((spare / at_s).min())


def _least_kept(problem: AllocationProblem, kept: KeptOffers) -> IntArray:
    """The smallest offers that keep enough; floors where nothing was granted or can be kept."""
    carrying = replace(problem, capacity_bytes_per_s=kept.carried_bytes_per_s)
    load = np.where(np.isfinite(carrying.required_rates()), problem.payload_bytes, np.inf)
    least_value = KEPT_VALUE * chosen(problem.value, kept.granted)
    enough = floors(np.where(problem.value >= least_value[:, None], load, np.inf), problem.value)
    return np.where(enough >= 0, enough, floors(load, problem.value))

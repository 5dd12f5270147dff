"""Offers chosen over time: rates may change before the deadlines, so more fits than with Eq. 5.

This module owns the time-ordered formulation. Eq. 5 reserves one constant rate per request; of two
1 MB transfers due in 1 s and 2 s it admits only one on a 1 MB/s link, although sending them one
after the other is in time. Here a choice is admissible iff for every instant t until the last
deadline the bytes that *must* cross by then do::

    Σ_i max(0, payload_i − limit_i · max(0, window_i − t))  ≤  capacity · t

which is necessary and sufficient for rates that vary freely up to the agents' limits: all windows
open now, so [0, t] is the tightest set of instants of length t for every request at once (max-flow
min-cut). The constant rates of Eq. 5 satisfy it, so nothing is lost. For unlimited agents it is
the demand bound of earliest deadline first, and the admissible loads form a polymatroid, on which
taking steps by value per byte is optimal but for whole steps (Edmonds 1970). It does not know who
sends when: ``sharing`` turns the choice into rates.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from scout_core.allocation.hull import HullSteps, floors, hull_steps
from scout_core.allocation.knapsack import select_offers
from scout_core.allocation.problem import (
    TOLERANCE,
    UNSERVED,
    AllocationProblem,
    BoolArray,
    FloatArray,
    IntArray,
    Selection,
    chosen,
)

TIGHT_LEVELS: Final = 12
"""Instants at which the link may be found full before the search ends; each costs some 10 checks of
the whole choice."""
GAP_MOVES: Final = 16
"""Single changes tried at the end, each with a pass over the table."""
EXCHANGED_REQUESTS: Final = 32
"""Up to so many requests, exchanges of one step for another are tried at the end."""
EXCHANGES: Final = 12
TRIED_UPS: Final = 16
TRIED_DOWNS: Final = 8
"""Of the most promising, so that an exchange costs at most 128 checks."""
EXCHANGE_GAIN: Final = 1e-9
"""Smaller gains are rounding."""
SEARCHED_REQUESTS: Final = 2_048
"""Beyond so many requests Eq. 5 alone is solved: one check costs a millisecond there, and with so
many requests in flight a constant rate for each loses little."""


def spare_bytes(
    payload_bytes: FloatArray, window_s: FloatArray, limit_bytes_per_s: FloatArray, capacity: float
) -> tuple[FloatArray, FloatArray]:
    """How much more could have crossed by each deadline than must have.

    Args:
        payload_bytes, window_s, limit_bytes_per_s: ``[flows]``; windows > 0; limits may be inf.
        capacity: bytes a second.

    Returns:
        The windows in rising order, and the spare bytes at each; negative: does not fit.
    """
    at_s = np.sort(window_s)
    slow = limit_bytes_per_s < capacity
    fast = ~slow
    order = np.argsort(window_s[fast])
    due = np.concatenate(([0.0], np.cumsum(payload_bytes[fast][order])))
    must = due[np.searchsorted(window_s[fast][order], at_s, side="right")]
    if slow.any():
        limit, end_s = limit_bytes_per_s[slow], window_s[slow]
        # At a slow agent's limit its payload is a ramp that ends in its deadline.
        start_s = end_s - payload_bytes[slow] / limit
        must = must + _ramps(start_s, limit, at_s) - _ramps(end_s, limit, at_s)
    return at_s, capacity * at_s - must


def _ramps(start_s: FloatArray, slope: FloatArray, at_s: FloatArray) -> FloatArray:
    """``Σ_i slope_i · max(0, at − start_i)`` at every ``at_s``."""
    order = np.argsort(start_s)
    slopes = np.concatenate(([0.0], np.cumsum(slope[order])))
    offsets = np.concatenate(([0.0], np.cumsum((slope * start_s)[order])))
    begun = np.searchsorted(start_s[order], at_s, side="left")
    return slopes[begun] * at_s - offsets[begun]


def select_offers_over_time(problem: AllocationProblem) -> Selection:
    """The most valuable offers found that all finish in time under rates that vary.

    Never worse than ``select_offers``: both are computed and the better one is returned. The bound
    is Σ of each request's best feasible value, ``exact`` only if it is reached or if all windows
    are equal (then Eq. 5 says the same).
    """
    steady = select_offers(problem)
    rates = problem.required_rates()
    usable = np.isfinite(rates)
    best = float(np.where(usable, problem.value, 0.0).max(axis=1, initial=0.0).sum())
    windows = problem.window_s[usable]
    same_window = windows.size == 0 or bool(windows.min() == windows.max())
    if steady.value >= best or same_window or problem.requests > SEARCHED_REQUESTS:
        return steady
    varied = _Search(problem, usable).run()
    value = float(chosen(problem.value, varied).sum())
    if value <= steady.value:
        return Selection(steady.choice, steady.value, best, exact=False)
    return Selection(varied, value, best, exact=value >= best)


class _Search:
    """One run of the greedy over time."""

    def __init__(self, problem: AllocationProblem, usable: BoolArray) -> None:
        self._columns = problem.offers
        self._capacity = problem.capacity_bytes_per_s
        self._limit = problem.rate_limit_bytes_per_s
        self._load = np.where(usable, problem.payload_bytes, np.inf)
        self._value = problem.value
        self._window_s = np.where(usable, problem.window_s, np.inf)
        floor = floors(self._load, self._value)
        served = floor >= 0
        _, spare = spare_bytes(
            chosen(self._load, floor)[served],
            chosen(self._window_s, floor)[served],
            self._limit[served],
            self._capacity,
        )
        if spare.size and spare.min() < 0:
            # Leaving a request out becomes an offer of no load and no value, never due.
            edge = np.zeros((problem.requests, 1))
            self._load = np.hstack((self._load, edge))
            self._value = np.hstack((self._value, edge))
            self._window_s = np.hstack((self._window_s, edge + np.inf))
        # Ranks of all windows, once: a check is then a count by rank and a running sum.
        self._slow = bool((self._limit < self._capacity).any())
        levels_s, rank = np.unique(self._window_s, return_inverse=True)
        self._rank = rank.reshape(self._window_s.shape)
        self._levels_s = levels_s[np.isfinite(levels_s)]

    def run(self) -> IntArray:
        choice = self._climb(hull_steps(self._load, self._value))
        choice = self._fill_gap(choice)
        if choice.size <= EXCHANGED_REQUESTS:
            for _ in range(EXCHANGES):
                exchanged = self._exchange(choice)
                if exchanged is None:
                    break
                choice = self._fill_gap(exchanged)
        return np.where(choice == self._columns, UNSERVED, choice)

    def _climb(self, steps: HullSteps) -> IntArray:
        """Takes steps in order; requests due before a full instant stop, the others go on."""
        choice = steps.floor
        open_steps = np.arange(steps.request.size)
        for _ in range(TIGHT_LEVELS):
            taken = self._longest_fitting(choice, steps, open_steps)
            choice = _after(choice, steps, open_steps[:taken])
            if taken == open_steps.size:
                break
            blocked = open_steps[taken]
            full_s = self._full_instant(_after(choice, steps, blocked[None]), choice)
            stopped = chosen(self._window_s, choice, np.inf) <= full_s
            stopped[steps.request[blocked]] = True
            open_steps = open_steps[taken:]
            open_steps = open_steps[~stopped[steps.request[open_steps]]]
        return choice

    def _longest_fitting(self, choice: IntArray, steps: HullSteps, open_steps: IntArray) -> int:
        """How many of the next steps can be taken together."""
        if self._fits(_after(choice, steps, open_steps)):
            return open_steps.size
        fitting, failing = 0, open_steps.size
        while failing - fitting > 1:
            middle = (fitting + failing) // 2
            if self._fits(_after(choice, steps, open_steps[:middle])):
                fitting = middle
            else:
                failing = middle
        return fitting

    def _full_instant(self, too_much: IntArray, choice: IntArray) -> float:
        """The tightest deadline of ``choice`` among those that ``too_much`` would break."""
        broken_s, spare = self._spare(too_much)
        broken_s = broken_s[spare < -TOLERANCE * self._capacity * broken_s]
        at_s, spare = self._spare(choice)
        within = (at_s >= broken_s.min()) & (at_s <= broken_s.max())
        if not within.any():
            return float(broken_s.min())
        return float(at_s[within][(spare[within] / at_s[within]).argmin()])

    def _fill_gap(self, choice: IntArray) -> IntArray:
        """The single change with the largest gain that surely fits, repeatedly."""
        refused = np.zeros(self._load.shape, dtype=np.bool_)
        for _ in range(GAP_MOVES):
            gain = self._fitting_gains(choice)
            gain[refused] = 0.0
            best = int(gain.argmax()) if gain.size else 0
            if not gain.size or gain.flat[best] <= 0:
                break
            row, column = divmod(best, self._load.shape[1])
            trial = choice.copy()
            trial[row] = column
            if self._fits(trial):
                choice = trial
            else:
                refused[row, column] = True
        return choice

    def _exchange(self, choice: IntArray) -> IntArray | None:
        """One request up and another down, together worth more; None if none is found."""
        change = self._value - chosen(self._value, choice)[:, None]
        freed = chosen(self._load, choice)[:, None] - self._load
        movable = np.isfinite(self._load) & (choice >= 0)[:, None]
        ups = np.flatnonzero(movable & (change > 0))
        ups = ups[np.argsort(-change.flat[ups], kind="stable")][:TRIED_UPS]
        downs = np.flatnonzero(movable & (change <= 0) & (freed > 0))
        downs = downs[np.argsort(-change.flat[downs], kind="stable")]
        spare_at_all = float(self._spare(choice)[1].min(initial=np.inf))
        for up in ups:
            row, column = divmod(int(up), self._load.shape[1])
            # Not less than what is missing where the link is fullest, if nothing moves in time.
            missing = -freed[row, column] - max(spare_at_all, 0.0)
            pays = change.flat[downs] + change[row, column] > EXCHANGE_GAIN
            enough = downs[pays & (freed.flat[downs] >= 0.5 * missing)]
            for down in enough[enough // self._load.shape[1] != row][:TRIED_DOWNS]:
                trial = choice.copy()
                trial[row] = column
                trial[down // self._load.shape[1]] = down % self._load.shape[1]
                if self._fits(trial):
                    return trial
        return None

    def _fitting_gains(self, choice: IntArray) -> FloatArray:
        """``[requests, offers]``: gain of each change that the spare bytes allow, else 0."""
        at_s, spare = self._spare(choice)
        # From a deadline on, the least spare of all later instants is what may be added.
        later = np.append(np.minimum.accumulate(spare[::-1])[::-1], np.inf)
        now_s, now_load = chosen(self._window_s, choice, np.inf), chosen(self._load, choice)
        room = later[np.searchsorted(at_s, self._window_s, side="left")]
        room_now = later[np.searchsorted(at_s, now_s, side="left")][:, None]
        later_due = self._window_s >= now_s[:, None]
        more = self._load - np.where(later_due, now_load[:, None], 0.0)
        fits = (more <= room) & (self._load - now_load[:, None] <= np.maximum(room_now, room))
        gain = self._value - chosen(self._value, choice)[:, None]
        return np.where(fits & np.isfinite(self._load) & (choice >= 0)[:, None], gain, 0.0)

    def _fits(self, choice: IntArray) -> bool:
        at_s, spare = self._spare(choice)
        return bool(np.all(spare >= -TOLERANCE * self._capacity * at_s))

    def _spare(self, choice: IntArray) -> tuple[FloatArray, FloatArray]:
        """Deadlines that matter, and the spare bytes at each."""
        if self._slow:
            window_s = chosen(self._window_s, choice, np.inf)
            due = np.isfinite(window_s)
            load = chosen(self._load, choice)[due]
            return spare_bytes(load, window_s[due], self._limit[due], self._capacity)
        served = np.flatnonzero(choice >= 0)
        columns = choice[served]
        loads, ranks = self._load[served, columns], self._rank[served, columns]
        # The last rank may be that of offers that are never due; they carry nothing.
        due = np.bincount(ranks, loads, self._levels_s.size)[: self._levels_s.size]
        return self._levels_s, self._capacity * self._levels_s - np.cumsum(due)


def _after(choice: IntArray, steps: HullSteps, taken: IntArray) -> IntArray:
    result = choice.copy()
    result[steps.request[taken]] = steps.target[taken]
    return result

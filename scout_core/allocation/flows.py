"""Transfers in progress as parallel arrays: what every sharing rule reads.

This module owns the shape and two ways of pouring a capacity into limits. It does not know which
rule uses them (``sharing`` is ours, ``baselines`` the others).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from scout_core.allocation.problem import BoolArray, FloatArray, IntArray

TIE_S: Final = 0.001
"""Less than the time of a message: who of two goes first then makes neither late, but a swap
between two solves costs both a change of rate."""


@dataclass(frozen=True, slots=True, eq=False)
class Flows:
    """Requests whose offer is chosen.

    Attributes:
        remaining_bytes: ``[flows]`` still to be sent, ≥ 0.
        open_ended: ``[flows]`` whether nobody knows how much that is: the declared size is there.
        window_s: ``[flows]`` seconds in which they can cross and be in time: deadline − now − fixed
            times still ahead; ≤ 0: too late.
        due_at_s: ``[flows]`` when the last byte is due, on the clock of ``now``; at least
            ``window_s`` from now, more by the time that the edge still computes.
        ready: ``[flows]`` whether the edge has bytes to send now.
        late: ``[flows]`` whether the request has lost its deadline and is served after the others.
        arrived_s: ``[flows]`` when the request arrived.
        limit_bytes_per_s: ``[flows]`` of the agent's own access link; inf if unknown.
        now: the moment at which all of this holds.
    """

    remaining_bytes: FloatArray
    open_ended: BoolArray
    window_s: FloatArray
    due_at_s: FloatArray
    ready: BoolArray
    late: BoolArray
    arrived_s: FloatArray
    limit_bytes_per_s: FloatArray
    now: float

    @property
    def due_s(self) -> FloatArray:
        """``[flows]``: seconds from now until the last byte is due."""
        return self.due_at_s - self.now

    def turns(self) -> IntArray:
        """``[flows]``: rank by when the last byte is due; late transfers after all others.

        Transfers due within ``TIE_S`` of each other keep the order in which they came. Instants are
        compared, not times left: rounding those anew at each solve would swap equals.
        """
        tick = np.where(self.late, np.inf, np.round(self.due_at_s / TIE_S))
        ranks = np.empty(self.late.size, dtype=np.int64)
        ranks[np.lexsort((self.arrived_s, tick))] = np.arange(self.late.size)
        return ranks

    @property
    def active(self) -> BoolArray:
        """``[flows]``: has bytes to send now."""
        return self.ready & (self.remaining_bytes > 0)

    def required_bytes_per_s(self) -> FloatArray:
        """``[flows]``: the constant rate that is in time (Eq. 5); the limit where none is."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            rates = self.remaining_bytes / np.maximum(self.window_s, 0.0)
        return np.minimum(np.where(self.remaining_bytes > 0, rates, 0.0), self.limit_bytes_per_s)


def pour_in_order(limits: FloatArray, key: FloatArray | IntArray, amount: float) -> FloatArray:
    """Fills ``limits`` in rising ``key`` until ``amount`` is used up."""
    order = np.argsort(key, kind="stable")
    wanted = limits[order]
    before = np.cumsum(np.minimum(wanted, max(amount, 0.0)))
    before = np.concatenate(([0.0], before[:-1])) if before.size else before
    poured = np.zeros_like(limits)
    poured[order] = np.clip(amount - before, 0.0, wanted)
    return poured


def pour_level(limits: FloatArray, amount: float) -> FloatArray:
    """Max-min fair: everyone gets the same, those with a smaller limit their limit."""
    if limits.size == 0 or amount <= 0:
        return np.zeros_like(limits)
    order = np.sort(limits)
    finite = np.minimum(order, amount)
    reached = np.concatenate(([0.0], np.cumsum(finite)[:-1]))
    # level[k]: the level if exactly the k smallest limits are filled.
    level = (amount - reached) / np.arange(limits.size, 0, -1)
    filled = np.flatnonzero(level < order)
    return np.minimum(limits, level[filled[0]] if filled.size else np.inf)

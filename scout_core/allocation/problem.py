"""The allocation problem of one uplink group as arrays: offers, windows, limits, capacity.

This module owns the numbers of one solve and their checks. It does not know agents, sessions,
leases or time: ``requests`` turns those into this form, ``knapsack`` and ``horizon`` solve it.
The paper's Eq. 5 and its assumptions are written out in the README of this room.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from scout_core.errors import RequestError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

UNSERVED = -1
"""The choice of a request that gets no offer."""
TOLERANCE = 1e-9
"""Relative slack of every capacity comparison: sums of 10,000 doubles err by about 1e-12."""


@dataclass(frozen=True, slots=True, eq=False)
class AllocationProblem:
    """Choose one offer and a rate per request under one shared capacity.

    Rows are requests, columns offers; a request with fewer offers than columns fills up with
    ``payload_bytes = inf``. The arrays are not copied: do not write to them afterwards.

    Attributes:
        payload_bytes: ``[requests, offers]`` bytes still to be sent, ≥ 0.
        value: ``[requests, offers]`` weight × expected quality, finite and ≥ 0.
        window_s: ``[requests, offers]`` seconds the link has for the offer: deadline − now − fixed
            times. Zero or less: the offer cannot be in time.
        rate_limit_bytes_per_s: ``[requests]`` what the agent's own access link carries; inf if
            unknown.
        capacity_bytes_per_s: of the group, ≥ 0.

    Raises:
        RequestError: shapes disagree, a payload is negative or NaN, or a value is not finite.
    """

    payload_bytes: FloatArray
    value: FloatArray
    window_s: FloatArray
    rate_limit_bytes_per_s: FloatArray
    capacity_bytes_per_s: float

    def __post_init__(self) -> None:
        shape = self.payload_bytes.shape
        if len(shape) != 2 or self.value.shape != shape or self.window_s.shape != shape:
            raise RequestError(
                "payload_bytes, value and window_s must share one [requests, offers] shape, got "
                f"{shape}, {self.value.shape} and {self.window_s.shape}."
            )
        if self.rate_limit_bytes_per_s.shape != shape[:1]:
            raise RequestError(f"One rate limit per request is needed, {shape[0]} in all.")
        if not np.all(self.payload_bytes >= 0):
            raise RequestError("Payload bytes must be ≥ 0 and not NaN (inf marks an empty column).")
        if not np.all(np.isfinite(self.value)) or not np.all(self.value >= 0):
            raise RequestError("Values (weight × quality) must be finite and ≥ 0.")
        if not self.capacity_bytes_per_s >= 0:
            raise RequestError(f"Capacity must be ≥ 0, got {self.capacity_bytes_per_s}.")

    @property
    def requests(self) -> int:
        return self.payload_bytes.shape[0]

    @property
    def offers(self) -> int:
        return self.payload_bytes.shape[1]

    def required_rates(self) -> FloatArray:
        """Bytes a second that finish each offer exactly in time; inf where none does.

        ``[requests, offers]``: payload ÷ window (Eq. 5), inf beyond the agent's own rate limit or
        the capacity. Nothing left to send needs no rate as long as the window is open.
        """
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            rates = self.payload_bytes / self.window_s
        reachable = np.minimum(self.rate_limit_bytes_per_s, self.capacity_bytes_per_s)
        fits = (self.window_s > 0) & (rates <= reachable[:, None] * (1 + TOLERANCE))
        return np.where(fits, rates, np.inf)

    def restricted_to(self, allowed: BoolArray) -> AllocationProblem:
        """The same problem without the offers where ``allowed`` ``[requests, offers]`` is False."""
        return replace(self, payload_bytes=np.where(allowed, self.payload_bytes, np.inf))


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """One offer for every request.

    Attributes:
        choice: ``[requests]`` column of the chosen offer, or ``UNSERVED``.
        value: sum of the chosen values.
        bound: no choice has a larger value than this (of the formulation that was solved).
        exact: whether ``choice`` is known to be optimal for that formulation.
    """

    choice: IntArray
    value: float
    bound: float
    exact: bool


def chosen(table: FloatArray, choice: IntArray, missing: float = 0.0) -> FloatArray:
    """``[requests]``: the entry of each request's chosen column, ``missing`` where unserved."""
    if table.shape[1] == 0:
        return np.full(table.shape[0], missing)
    picked = table[np.arange(choice.size), np.maximum(choice, 0)]
    return np.where(choice >= 0, picked, missing)

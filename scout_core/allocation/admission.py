"""When a request that cannot be served now could be.

This module owns the answer that goes with a rejection. It does not decide who is rejected: that
falls out of the knapsack, which leaves out those who lose the objective least.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scout_core.allocation.problem import FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Reservations:
    """What the accepted requests need at least: their floors at constant rates.

    Attributes:
        rate_bytes_per_s: ``[requests]``.
        until_s: ``[requests]`` seconds from now until each is due.
    """

    rate_bytes_per_s: FloatArray
    until_s: FloatArray


@dataclass(frozen=True, slots=True)
class Opening:
    """The first time a request fits, in seconds from now; inf: never.

    Attributes:
        start_s: when to ask again.
        finish_s: when its first token would be there.
    """

    start_s: float
    finish_s: float


def first_opening(
    payload_bytes: FloatArray,
    fixed_s: FloatArray,
    limit_bytes_per_s: float,
    reserved: Reservations,
    capacity: float,
) -> Opening:
    """The earliest first token of a request beside the reservations, if nobody else comes.

    It may start now on what is left over, or when a reservation ends and its share is free; the
    earliest finish over all starts and offers wins, of equals the earliest start.

    Args:
        payload_bytes, fixed_s: ``[offers]`` bytes, and edge plus cloud seconds; inf where empty.
        limit_bytes_per_s: of the agent.
        reserved: the accepted requests.
        capacity: bytes a second.
    """
    starts = np.unique(np.concatenate(([0.0], np.maximum(reserved.until_s, 0.0))))
    order = np.argsort(reserved.until_s)
    held = np.concatenate((np.cumsum(reserved.rate_bytes_per_s[order][::-1])[::-1], [0.0]))
    still = held[np.searchsorted(reserved.until_s[order], starts, side="right")]
    free = np.minimum(np.maximum(capacity - still, 0.0), limit_bytes_per_s)
    usable = np.isfinite(payload_bytes) & np.isfinite(fixed_s)
    with np.errstate(divide="ignore", over="ignore"):
        finish = starts[:, None] + fixed_s[usable] + payload_bytes[usable] / free[:, None]
    if finish.size == 0 or not np.isfinite(finish.min()):
        return Opening(np.inf, np.inf)
    best = int(finish.min(axis=1).argmin())
    return Opening(float(starts[best]), float(finish[best].min()))

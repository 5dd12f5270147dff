"""From chosen offers to rates now: what each needs, then the rest where it helps completion.

This module owns our rule. It does not know offers, leases or who the agents are. First what cannot
wait, then earliest due first, which is optimal for one link (Liu and Layland 1973). Where the
constant rates fit (Σ required ≤ capacity) those agents get theirs whose own link is slower than
this one: later they could not make up for it. The others wait for their turn there as well. Would
they get constant rates as soon as these fit, a claim that ends would make those next in turn later:
their time would go to transfers that are due after them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scout_core.allocation.flows import Flows, pour_in_order, pour_level
from scout_core.allocation.problem import TOLERANCE, FloatArray
from scout_core.errors import SettingsError


@dataclass(frozen=True, slots=True)
class SharingPolicy:
    """Knobs of ``share_capacity``.

    Attributes:
        guarantee_bytes_per_s: a transfer that is late gets at least this much, so that it never
            starves; 2 kB/s carry the indices of 100 positions in 10 ms. One that is in time needs
            no guarantee: its turn comes before its deadline.
        guarantee_fraction: all guarantees together take at most this part of the capacity.
        quantum_s: nobody gets a rate that would finish it sooner than this, unless its deadline
            asks for it; grants for shorter times than a message needs would be wasted.
        horizon_s: the rates hold about so long; what must start within it cannot wait.
    """

    guarantee_bytes_per_s: float = 2_000.0
    guarantee_fraction: float = 0.05
    quantum_s: float = 0.005
    horizon_s: float = 0.1

    def __post_init__(self) -> None:
        if self.guarantee_bytes_per_s < 0 or not 0 <= self.guarantee_fraction < 1:
            raise SettingsError("A guarantee is a rate ≥ 0 and a fraction of the capacity in 0..1.")
        if self.quantum_s <= 0 or self.horizon_s <= 0:
            raise SettingsError("quantum_s and horizon_s must be > 0.")


def share_capacity(flows: Flows, capacity: float, policy: SharingPolicy) -> FloatArray:
    """``[flows]`` bytes a second, Σ ≤ capacity, nobody above its limit.

    Transfers whose edge still computes get nothing yet: their share is lent to the others, and the
    next solve, due when they are ready, takes it back.
    """
    active = flows.active
    useful = np.maximum(flows.remaining_bytes / policy.quantum_s, flows.required_bytes_per_s())
    limit = np.where(active, np.minimum(flows.limit_bytes_per_s, useful), 0.0)
    limit = np.minimum(limit, capacity)
    guarantee = pour_level(
        np.where(flows.late, np.minimum(limit, policy.guarantee_bytes_per_s), 0.0),
        capacity * policy.guarantee_fraction,
    )
    needed = _needed_now(flows, limit, guarantee, capacity, policy)
    rates = np.minimum(needed, limit)
    turns = flows.turns()
    # What cannot wait may itself be too much after the capacity fell: earliest due first then.
    rates = guarantee + pour_in_order(rates - guarantee, turns, capacity - float(guarantee.sum()))
    rest = capacity - float(rates.sum())
    if rest > 0:
        rates = rates + pour_in_order(limit - rates, turns, rest)
    return rates


def _needed_now(
    flows: Flows, limit: FloatArray, guarantee: FloatArray, capacity: float, policy: SharingPolicy
) -> FloatArray:
    on_time = flows.active & ~flows.late
    required = np.maximum(np.where(on_time, flows.required_bytes_per_s(), 0.0), guarantee)
    if float(required.sum()) <= capacity * (1 + TOLERANCE):
        waits = on_time & (flows.limit_bytes_per_s >= capacity)
        return np.minimum(np.where(waits, guarantee, required), limit)
    # Rates will vary. A transfer that even at its limit would need longer than from the end of this
    # horizon on must send the difference now.
    with np.errstate(invalid="ignore", over="ignore"):
        later = flows.limit_bytes_per_s * np.maximum(flows.due_s - policy.horizon_s, 0.0)
    later = np.where(np.isfinite(later), later, np.inf)
    must = np.maximum(flows.remaining_bytes - later, 0.0) / policy.horizon_s
    return np.maximum(np.where(on_time, np.minimum(must, limit), 0.0), guarantee)

"""The sharing rules that ours is compared with.

This module owns five rules from transfers to rates. None of them knows what an offer is worth: the
agents chose for themselves. It does not know how they chose (the virtual-time study decides what an
agent believes of its link).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import assert_never

import numpy as np

from scout_core.allocation.flows import Flows, pour_in_order, pour_level
from scout_core.allocation.problem import FloatArray

SharingRule = Callable[[Flows, float], FloatArray]
"""Transfers and a capacity in bytes a second → ``[flows]`` bytes a second, Σ ≤ capacity."""


class Baseline(Enum):
    """The value is the name in tables and JSON."""

    EQUAL_SHARE = "equal_share"
    PROPORTIONAL = "proportional"
    EDF = "edf"
    MAX_MIN = "max_min"
    FCFS = "fcfs"


def sharing_rule(baseline: Baseline) -> SharingRule:
    """The rule of that name."""
    match baseline:
        case Baseline.EQUAL_SHARE:
            return equal_share
        case Baseline.PROPORTIONAL:
            return proportional
        case Baseline.EDF:
            return earliest_deadline_first
        case Baseline.MAX_MIN:
            return max_min
        case Baseline.FCFS:
            return first_come_first_served
        case _:
            assert_never(baseline)


def equal_share(flows: Flows, capacity: float) -> FloatArray:
    """The same for everyone who sends: what competing TCP connections approach."""
    return pour_level(_limits(flows), capacity)


def proportional(flows: Flows, capacity: float) -> FloatArray:
    """In proportion to what is left to send, so that all would finish together."""
    limit = _limits(flows)
    size = np.where(flows.active, flows.remaining_bytes, 0.0)
    total = float(size.sum())
    if total <= 0:
        return np.zeros_like(limit)
    return np.minimum(limit, capacity * size / total)


def earliest_deadline_first(flows: Flows, capacity: float) -> FloatArray:
    """Everything to the transfer that is due first, then to the next."""
    return pour_in_order(_limits(flows), flows.due_s, capacity)


def max_min(flows: Flows, capacity: float) -> FloatArray:
    """Max-min fair over the rates that the deadlines require; the rest in equal parts."""
    limit = _limits(flows)
    wanted = np.minimum(limit, flows.required_bytes_per_s())
    rates = pour_level(wanted, capacity)
    return rates + pour_level(limit - rates, capacity - float(rates.sum()))


def first_come_first_served(flows: Flows, capacity: float) -> FloatArray:
    """Everything to the request that arrived first, then to the next."""
    return pour_in_order(_limits(flows), flows.arrived_s, capacity)


def _limits(flows: Flows) -> FloatArray:
    return np.where(flows.active, flows.limit_bytes_per_s, 0.0)

"""Small problems and fakes for the allocation tests."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from scout_core.allocation.capacity import CapacityPolicy
from scout_core.allocation.events import (
    Action,
    AgentAttached,
    Grant,
    Report,
    ReportKind,
    RequestArrived,
)
from scout_core.allocation.offer import GroupId, Offer, Priority, TenantPolicy
from scout_core.allocation.policy import SchedulerPolicy
from scout_core.allocation.problem import AllocationProblem
from scout_core.allocation.scheduler import UplinkScheduler
from scout_core.modes import AgentId, Mode, SessionId, TenantId

GROUP = GroupId("cell")


def problem(
    payload: Sequence[Sequence[float]],
    value: Sequence[Sequence[float]],
    capacity: float,
    window_s: Sequence[Sequence[float]] | float = 1.0,
    limit: float = math.inf,
) -> AllocationProblem:
    """A problem from nested lists; one window for all by default."""
    sizes = np.array(payload, dtype=np.float64)
    windows = np.broadcast_to(np.array(window_s, dtype=np.float64), sizes.shape).copy()
    limits = np.full(sizes.shape[0], limit)
    return AllocationProblem(sizes, np.array(value, dtype=np.float64), windows, limits, capacity)


def random_small(seed: int, requests: int, offers: int, load: float) -> AllocationProblem:
    """Integers as payloads, so that sums are exact, and windows of 1, 2 or 4 s."""
    rng = np.random.default_rng(seed)
    payload = rng.integers(1, 40, (requests, offers)).astype(np.float64)
    value = rng.integers(1, 100, (requests, offers)) / 100
    window_s = np.repeat(rng.choice([1.0, 2.0, 4.0], (requests, 1)), offers, axis=1)
    capacity = float((payload / window_s).max(axis=1).sum()) / load
    return AllocationProblem(payload, value, window_s, np.full(requests, np.inf), capacity)


def best_by_enumeration(load: np.ndarray, value: np.ndarray, limit: float) -> float:
    """The optimum of a tiny knapsack: every combination; a request may stay out only if needed."""
    rows = range(load.shape[0])
    everyone = float(load.min(axis=1).sum()) <= limit
    columns = range(load.shape[1]) if everyone else range(-1, load.shape[1])
    best = 0.0
    for choice in itertools.product(columns, repeat=load.shape[0]):
        taken = [(row, column) for row, column in zip(rows, choice, strict=True) if column >= 0]
        if sum(load[entry] for entry in taken) <= limit * (1 + 1e-12):
            best = max(best, float(sum(value[entry] for entry in taken)))
    return best


def offer(
    mode: Mode, size: int, quality: float, edge_s: float = 0.0, cloud_s: float = 0.0
) -> Offer:
    return Offer(mode, 1.0 if mode.carries_kv else 0.5, size, quality, edge_s, cloud_s)


LADDER = (
    offer(Mode.KV_BF16, 1_000_000, 1.0),
    offer(Mode.KV_INT8, 500_000, 0.99),
    offer(Mode.KV_INT4, 250_000, 0.95),
    offer(Mode.SCOUT, 400, 0.8),
)
"""The modes at the sizes of a small context."""


PLAIN_POLICY = SchedulerPolicy(planning_margin=0.0, coalesce_s=0.0, caution=0.0)
"""Plans with the whole capacity and solves at once, so that expectations are round numbers."""


def scheduler(
    capacity: float = 1_000_000.0,
    tenants: Sequence[TenantPolicy] = (),
    policy: SchedulerPolicy | None = None,
    *,
    learns: bool = False,
) -> UplinkScheduler:
    """A scheduler whose groups all have the same capacity; ``PLAIN_POLICY`` by default."""
    settings = PLAIN_POLICY if policy is None else policy
    first = CapacityPolicy(capacity, learns=learns)
    return UplinkScheduler(lambda _: first, tenants, settings)


def attach(uplink: UplinkScheduler, name: str, now: float = 0.0, tenant: str = "tenant") -> AgentId:
    agent = AgentId(name)
    uplink.receive(AgentAttached(agent, TenantId(tenant), GROUP), now)
    return agent


def ask(
    uplink: UplinkScheduler,
    session: str,
    agent: AgentId,
    now: float,
    *,
    deadline_s: float = 1.0,
    offers: Sequence[Offer] = LADDER,
    priority: Priority = Priority.NORMAL,
) -> SessionId:
    """A request arrives; nothing is solved before the next tick."""
    name = SessionId(session)
    uplink.receive(RequestArrived(name, agent, now + deadline_s, tuple(offers), priority), now)
    return name


def grants(actions: Sequence[Action]) -> dict[SessionId, Grant]:
    """The last grant of every session among ``actions``."""
    return {action.session: action for action in actions if isinstance(action, Grant)}


def reports(actions: tuple[Action, ...]) -> list[ReportKind]:
    """What was reported, in order."""
    return [action.kind for action in actions if isinstance(action, Report)]

"""What a solve means for each request: in time, late, or turned away.

This module owns the changes of standing and the rejections. It does not know how the offers were
chosen, nor rates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scout_core.allocation.admission import Reservations, first_opening
from scout_core.allocation.events import Action, Reject, RejectCause, Report, ReportKind
from scout_core.allocation.outlook import least_remaining
from scout_core.allocation.problem import UNSERVED, AllocationProblem, BoolArray, IntArray
from scout_core.allocation.requests import RequestTable, Standing


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """The requests that go on.

    Attributes:
        slots, choice: ``[requests]`` their slots and offers; late ones take what is soonest done.
        switched: ``[requests]`` whether the offer is another than before.
        actions: rejections and reports on the way.
    """

    slots: IntArray
    choice: IntArray
    switched: BoolArray
    actions: tuple[Action, ...]


def judge(
    table: RequestTable, slots: IntArray, problem: AllocationProblem, choice: IntArray, now: float
) -> Verdict:
    """Turns a choice into standings; a new request that is not served is removed.

    A request that was granted before is never turned away: it becomes late instead.
    """
    unserved = choice == UNSERVED
    turned_away = unserved & (table.standing[slots] == Standing.NEW)
    actions: list[Action] = []
    if turned_away.any():
        floors = problem.required_rates().min(axis=1, initial=np.inf)
        reserved = Reservations(floors[~unserved], table.deadline_s[slots[~unserved]] - now)
        for row in np.flatnonzero(turned_away):
            fits_alone = bool(np.isfinite(floors[row]))
            cause = RejectCause.CAPACITY if fits_alone else RejectCause.DEADLINE
            capacity = problem.capacity_bytes_per_s
            actions.append(_reject(table, int(slots[row]), cause, (reserved, capacity), now))
    slots, choice = slots[~turned_away], choice[~turned_away]
    actions.extend(_change_standing(table, slots, choice, now))
    late = choice == UNSERVED
    choice = choice.copy()
    choice[late] = least_remaining(table, slots[late])
    switched = table.incumbent[slots] != choice
    return Verdict(slots, choice, switched, tuple(actions))


def _reject(
    table: RequestTable,
    slot: int,
    cause: RejectCause,
    beside: tuple[Reservations, float],
    now: float,
) -> Reject:
    request = table.request(slot)
    reserved, capacity = beside
    payload = np.array([offer.payload_bytes for offer in request.offers], dtype=np.float64)
    fixed_s = np.array([offer.edge_s + offer.cloud_s for offer in request.offers])
    limit = float(table.limit_bytes_per_s[slot])
    opening = first_opening(payload, fixed_s, limit, reserved, capacity)
    table.remove(request.session)
    return Reject(
        request.agent, request.session, cause, now + opening.start_s, now + opening.finish_s
    )


def _change_standing(
    table: RequestTable, slots: IntArray, choice: IntArray, now: float
) -> list[Action]:
    reports: list[Action] = []
    standing = table.standing[slots]
    lost = (choice == UNSERVED) & (standing == Standing.SERVED)
    regained = (choice != UNSERVED) & (standing == Standing.LATE)
    for row in np.flatnonzero(lost | regained):
        request = table.request(int(slots[row]))
        kind = ReportKind.DEADLINE_LOST if lost[row] else ReportKind.DEADLINE_REGAINED
        left_s = request.deadline_at_s - now
        reports.append(Report(kind, request.agent, request.session, left_s))
    table.standing[slots] = np.where(choice == UNSERVED, Standing.LATE, Standing.SERVED)
    return reports

"""One uplink group: its requests, its capacity, its grants, and one solve over them.

This module owns the step from the state of a group to actions. It does not know events or when to
solve: ``scheduler`` does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from scout_core.allocation.agents import AgentSeat
from scout_core.allocation.capacity import CapacityEstimate, CapacityPolicy
from scout_core.allocation.events import Action, Grant, Report, ReportKind
from scout_core.allocation.flows import Flows
from scout_core.allocation.guarantees import Guarantees, select_with_guarantees
from scout_core.allocation.horizon import select_offers_over_time
from scout_core.allocation.knapsack import select_offers
from scout_core.allocation.leases import GrantLedger, Lease
from scout_core.allocation.margin import KeptOffers, select_keeping
from scout_core.allocation.offer import MAX_QUALITY, GroupId, TenantPolicy
from scout_core.allocation.outlook import flows_of, problem_of, ready_at_s
from scout_core.allocation.policy import SchedulerPolicy
from scout_core.allocation.problem import (
    AllocationProblem,
    FloatArray,
    IntArray,
    Selection,
    chosen,
)
from scout_core.allocation.requests import RequestTable, Standing
from scout_core.allocation.sharing import share_capacity
from scout_core.allocation.verdicts import Verdict, judge
from scout_core.modes import AgentId, SessionId, TenantId

BEYOND_ANY_QUALITY: Final = 2 * MAX_QUALITY
HANDOVER_S: Final = 0.001
"""After a share was promised in full the next in turn has it so much later: a timer's resolution.
What is promised meanwhile is lost to all, 1 % of a transfer of 0.1 s."""


@dataclass(frozen=True, slots=True)
class GroupStatus:
    """A group at one moment, for metrics.

    Attributes:
        group: which.
        capacity_bytes_per_s, granted_bytes_per_s: what it carries and what is promised of it.
        requests, late: live requests, and those of them that have lost their deadline.
        value, bound: Σ weight × quality of the last solve, and what no choice exceeds.
    """

    group: GroupId
    capacity_bytes_per_s: float
    granted_bytes_per_s: float
    requests: int
    late: int
    value: float
    bound: float


class UplinkGroup:
    """The allocator's state of one shared uplink.

    Args:
        group: its name.
        capacity: how its capacity is known.
        policy: the scheduler's settings.
        tenants: by id; others have weight 1 and no guarantee.
        now: when the group came to be.
    """

    def __init__(
        self,
        group: GroupId,
        capacity: CapacityPolicy,
        policy: SchedulerPolicy,
        tenants: Mapping[TenantId, TenantPolicy],
        now: float,
    ) -> None:
        self.group = group
        self.capacity = CapacityEstimate(capacity, now)
        self.table = RequestTable()
        self.ledger = GrantLedger(group, self.capacity.bytes_per_s)
        self._policy = policy
        self._tenants = tenants
        self.next_promised_s: float | None = None
        """When the first of those that have a rate will have been promised all it needs."""
        self._value = self._bound = 0.0

    def status(self, now: float) -> GroupStatus:
        """A snapshot for metrics."""
        late = int((self.table.standing[self.table.live_slots()] == Standing.LATE).sum())
        return GroupStatus(
            self.group,
            self.capacity.bytes_per_s,
            self.ledger.granted_bytes_per_s(now),
            len(self.table),
            late,
            self._value,
            self._bound,
        )

    def solve(self, agents: Mapping[AgentId, AgentSeat], now: float) -> tuple[Action, ...]:
        """Chooses offers and rates for all live requests and returns what changed.

        Rejected requests are removed. Grants come last, those that take before those that give.
        """
        expired = self._expire(agents, now)
        slots = self.table.live_slots()
        seats = [agents[self.table.request(int(slot)).agent] for slot in slots]
        sending = [seat.may_send(now, self._policy.lease_s) for seat in seats]
        slots = slots[np.array(sending, dtype=np.bool_)]
        verdict = self._choose(slots, agents, now)
        self.table.adopt(verdict.slots, verdict.choice)
        flows = flows_of(self.table, verdict.slots, verdict.choice, now)
        rates = share_capacity(flows, self.capacity.bytes_per_s, self._policy.sharing)
        self.next_promised_s = _next_promised_s(flows, rates)
        grants = self._grant(verdict, rates, agents, now)
        return (*expired, *verdict.actions, *grants)

    def remove(self, session: SessionId) -> None:
        """Ends a request and its lease; KeyError if there is none."""
        self.table.remove(session)
        self.ledger.release((session,))

    def withhold(self, seat: AgentSeat, now: float) -> tuple[Action, ...]:
        """Takes the shares of a contained agent's sessions away, at once."""
        until_s = seat.account.contained_until_s
        grants: list[Grant] = []
        for session in seat.sessions:
            slot = self.table.slot(session)
            offer = max(int(self.table.incumbent[slot]), 0)
            terms = self.table.request(slot).offers[offer]
            grants.append(
                Grant(seat.agent, session, 0.0, until_s, offer, terms.mode, terms.retention)
            )
        self._book(grants, now)
        return tuple(grants)

    def next_ready_s(self, now: float) -> float | None:
        """When the next edge will have computed its payload."""
        slots = self.table.live_slots()
        ready = ready_at_s(self.table, slots, self.table.incumbent[slots])
        return float(ready[ready > now].min()) if (ready > now).any() else None

    def _expire(self, agents: Mapping[AgentId, AgentSeat], now: float) -> tuple[Action, ...]:
        reports: list[Action] = []
        for session in self.ledger.expire(now):
            if session in self.table:
                agent = self.table.request(self.table.slot(session)).agent
                if agents[agent].heard_s + self._policy.lease_s <= now:
                    reports.append(Report(ReportKind.LEASE_EXPIRED, agent, session))
        return tuple(reports)

    def _choose(self, slots: IntArray, agents: Mapping[AgentId, AgentSeat], now: float) -> Verdict:
        late = self.table.standing[slots] == Standing.LATE
        # No credit reaches one without a stream; new ones need not make room for it.
        reached = late & (self.table.paused[slots] == 0)
        reserved = float(reached.sum()) * self._policy.sharing.guarantee_bytes_per_s
        capacity = self.capacity.bytes_per_s
        reserved = min(reserved, capacity * self._policy.sharing.guarantee_fraction)
        cautious = capacity * math.exp(-self._policy.caution * self.capacity.volatility)
        planned = cautious * (1 - self._policy.planning_margin) - reserved
        problem = problem_of(self.table, slots, now, max(planned, 0.0))
        shrink = np.where(late, self._policy.late_window, 1.0)
        window_s = self._with_grace(slots, problem.window_s * shrink[:, None])
        problem = replace(problem, window_s=window_s)
        selection = self._select(
            replace(problem, value=self._favouring_incumbents(slots, problem)),
            self._guarantees(slots, agents),
            KeptOffers(self.table.incumbent[slots], max(cautious - reserved, 0.0)),
        )
        self._value = float(chosen(problem.value, selection.choice).sum())
        self._bound = max(selection.bound, self._value)
        return judge(self.table, slots, problem, selection.choice, now)

    def _select(
        self, problem: AllocationProblem, guarantees: Guarantees, kept: KeptOffers
    ) -> Selection:
        if not self._policy.orders_in_time:
            return select_with_guarantees(problem, guarantees, select_offers)
        return select_keeping(
            problem,
            kept,
            lambda counted: select_with_guarantees(counted, guarantees, select_offers_over_time),
        )

    def _favouring_incumbents(self, slots: IntArray, problem: AllocationProblem) -> FloatArray:
        """A change must win at least the hysteresis: the offer now is worth so much more, and near
        the end of its payload more than any other."""
        value = problem.value.copy()
        offer = self.table.incumbent[slots]
        held = np.flatnonzero(offer >= 0)
        left = problem.payload_bytes[held, offer[held]]
        settled = self.table.has_begun(slots[held]) & (left <= self._policy.settled_bytes)
        bonus = np.where(settled, BEYOND_ANY_QUALITY, self._policy.hysteresis)
        value[held, offer[held]] += bonus * self.table.weight[slots[held]]
        return value

    def _with_grace(self, slots: IntArray, window_s: FloatArray) -> FloatArray:
        """At its very end the window of what is being sent does not shrink to nothing.

        Or the last bytes of a transfer that is just in time would seem to need an infinite rate,
        and it would be given up for a rounding error.
        """
        window_s, grace_s = window_s.copy(), self._policy.grace_s
        offer = self.table.incumbent[slots]
        sent = np.flatnonzero((offer >= 0) & (self.table.standing[slots] == Standing.SERVED))
        ending = window_s[sent, offer[sent]]
        ending = np.where(ending > -grace_s, np.maximum(ending, grace_s), ending)
        window_s[sent, offer[sent]] = ending
        return window_s

    def _guarantees(self, slots: IntArray, agents: Mapping[AgentId, AgentSeat]) -> Guarantees:
        index = {tenant: number for number, tenant in enumerate(self._tenants, start=1)}
        shares = [0.0, *(policy.guaranteed_share for policy in self._tenants.values())]
        owners = [agents[self.table.request(int(slot)).agent].attached.tenant for slot in slots]
        tenant = np.array([index.get(owner, 0) for owner in owners], dtype=np.int64)
        return Guarantees(tenant, np.array(shares))

    def _grant(
        self,
        verdict: Verdict,
        rates: FloatArray,
        agents: Mapping[AgentId, AgentSeat],
        now: float,
    ) -> tuple[Action, ...]:
        """Leases for what changed or runs out; the ledger checks their sum."""
        grants: list[tuple[float, Grant]] = []
        columns = zip(verdict.slots, verdict.choice, rates, verdict.switched, strict=True)
        for slot, offer, rate, switched in columns:
            request = self.table.request(int(slot))
            terms = request.offers[int(offer)]
            grant = Grant(
                request.agent,
                request.session,
                float(rate),
                agents[request.agent].heard_s + self._policy.lease_s,
                int(offer),
                terms.mode,
                terms.retention,
            )
            before = self.ledger.lease(request.session)
            if before is None or switched or self._is_news(grant, before, now):
                held = 0.0 if before is None else before.rate_bytes_per_s
                grants.append((grant.rate_bytes_per_s - held, grant))
        grants.sort(key=lambda entry: entry[0])
        self._book([grant for _, grant in grants], now)
        return tuple(grant for _, grant in grants)

    def _is_news(self, grant: Grant, before: Lease, now: float) -> bool:
        """Whether the agent must hear of it: less, clearly more, or the lease runs out."""
        if grant.rate_bytes_per_s < before.rate_bytes_per_s:
            return True
        if grant.rate_bytes_per_s > before.rate_bytes_per_s * (1 + self._policy.grant_step):
            return True
        halfway = before.expires_at_s - now < self._policy.lease_s / 2
        return halfway and grant.expires_at_s > before.expires_at_s

    def _book(self, grants: Iterable[Grant], now: float) -> None:
        leases = {
            grant.session: Lease(grant.rate_bytes_per_s, grant.expires_at_s) for grant in grants
        }
        self.ledger.apply(leases, now, capacity_bytes_per_s=self.capacity.bytes_per_s)


def _next_promised_s(flows: Flows, rates: FloatArray) -> float | None:
    """When the next in turn can have the share of the first that needs it no more. Not for tails:
    nobody knows when they end."""
    flowing = (rates > 0) & ~flows.open_ended
    if not flowing.any():
        return None
    return flows.now + float((flows.remaining_bytes[flowing] / rates[flowing]).min()) + HANDOVER_S

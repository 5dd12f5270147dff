"""The allocators of the study: ours driven through its events, the baselines through their rules.

This module owns how each is put to work in virtual time. It does not know the physics
(``allocation_simulation``) nor the metrics.

Under a baseline every agent chooses for itself: the best offer that would be in time on the uplink
as the agent measured it while idle, that is, the whole of it: nothing tells it of the others. The
``informed`` variant tells it how many share the uplink now; it is not in the paper's comparison,
and shown because it is what a simple system would do.
"""

from __future__ import annotations

import math

import numpy as np

from scout_core.allocation.baselines import Baseline, sharing_rule
from scout_core.allocation.capacity import CapacityPolicy
from scout_core.allocation.events import (
    AgentAttached,
    AgentHeard,
    CapacityConfigured,
    Event,
    Grant,
    Reject,
    Report,
    RequestArrived,
    RequestFinished,
    RequestProgress,
    RequestSwitched,
)
from scout_core.allocation.flows import Flows
from scout_core.allocation.offer import GroupId, Offer
from scout_core.allocation.policy import SchedulerPolicy
from scout_core.allocation.scheduler import UplinkScheduler
from scout_core.evaluation.allocation_simulation import Step, Transfer
from scout_core.evaluation.allocation_workload import Workload
from scout_core.modes import AgentId, SessionId, TenantId

GROUP = GroupId("uplink")
STUDY_POLICY = SchedulerPolicy(coalesce_s=0.0, planning_margin=0.0, grant_step=0.0)
"""The defaults, but for what virtual time does not have: bursts of events, framing bytes, and
messages that cost something."""
SAMPLE_S = 0.1
"""How often ours learns the capacity: it follows a change up to so much later."""
FAREWELL_BYTES_PER_S = 1.0
"""Ours counts an outage as this capacity; the scheduler wants a number above zero."""


class BaselineContender:
    """A sharing rule, with agents that choose for themselves on arrival and never change.

    Args:
        baseline: the rule.
        informed: agents know how many share the uplink.
    """

    def __init__(self, baseline: Baseline, *, informed: bool = False) -> None:
        self._share = sharing_rule(baseline)
        self._informed = informed

    def decide(self, step: Step) -> tuple[int, ...]:
        """Every rate follows from who is live; nobody is turned away."""
        rate = step.capacity_bytes_per_s
        if self._informed:
            rate /= max(len(step.live), 1)
        for transfer in step.arrived:
            transfer.choose(_own_choice(transfer.request.offers, transfer.request.deadline_s, rate))
        transfers = list(step.live.values())
        flows = _flows(transfers, step.now)
        for transfer, share in zip(
            transfers, self._share(flows, step.capacity_bytes_per_s), strict=True
        ):
            transfer.rate_bytes_per_s = float(share)
        return ()

    def wake_s(self) -> float | None:
        """Rules only depend on who is live."""
        return None


class SchedulerContender:
    """Our scheduler behind its events, as the cloud daemon drives it.

    Args:
        workload: for the agents' names; nothing of the future is used.
        policy: settings; ``STUDY_POLICY`` unless given.
    """

    def __init__(self, workload: Workload, policy: SchedulerPolicy | None = None) -> None:
        first = CapacityPolicy(workload.mean_bytes_per_s, minimum_bytes_per_s=FAREWELL_BYTES_PER_S)
        self._scheduler = UplinkScheduler(lambda _: first, policy=policy or STUDY_POLICY)
        self._attached: dict[AgentId, None] = {}
        self._sampled_s = -math.inf
        self._expiries: dict[int, float] = {}

    def decide(self, step: Step) -> tuple[int, ...]:
        """Tells the scheduler what happened and carries out its actions."""
        turned_away: list[int] = []
        for event in self._events(step):
            turned_away.extend(self._apply(self._scheduler.receive(event, step.now), step))
        turned_away.extend(self._apply(self._scheduler.tick(step.now), step))
        for index, transfer in step.live.items():
            if self._expiries.get(index, math.inf) <= step.now:
                transfer.rate_bytes_per_s = 0.0
        return tuple(turned_away)

    def wake_s(self) -> float | None:
        """When the scheduler wants to solve again."""
        return self._scheduler.next_deadline()

    def _events(self, step: Step) -> list[Event]:
        events: list[Event] = []
        for index in step.ended:
            events.append(RequestFinished(_session(index)))
            self._expiries.pop(index, None)
        arrived = {transfer.index for transfer in step.arrived}
        for index, transfer in step.live.items():
            agent = AgentId(f"agent-{transfer.request.agent}")
            if agent not in self._attached:
                self._attached[agent] = None
                events.append(AgentAttached(agent, TenantId("study"), GROUP))
            if index in arrived:
                deadline_at_s = transfer.request.deadline_at_s
                offers = transfer.request.offers
                events.append(RequestArrived(_session(index), agent, deadline_at_s, offers))
            elif transfer.received_bytes >= 1.0:
                received = math.ceil(transfer.received_bytes)
                events.append(RequestProgress(_session(index), received))
            else:
                events.append(AgentHeard(agent))
        # After the progress: a solve may switch offers, and these bytes came before that.
        if step.now >= self._sampled_s + SAMPLE_S - 1e-9:
            self._sampled_s = step.now
            events.append(CapacityConfigured(GROUP, step.capacity_bytes_per_s))
        return events

    def _apply(self, actions: tuple[Grant | Reject | Report, ...], step: Step) -> list[int]:
        turned_away: list[int] = []
        for action in actions:
            match action:
                case Grant():
                    transfer = step.live[_index(action.session)]
                    transfer.choose(action.offer)
                    switched = RequestSwitched(action.session, action.offer)
                    self._scheduler.receive(switched, step.now)
                    transfer.rate_bytes_per_s = action.rate_bytes_per_s
                    self._expiries[transfer.index] = action.expires_at_s
                case Reject():
                    turned_away.append(_index(action.session))
                case Report():
                    pass
        return turned_away


def _own_choice(offers: tuple[Offer, ...], deadline_s: float, rate_bytes_per_s: float) -> int:
    """The best offer in time at that rate, the smallest of equals; else the soonest."""

    def takes_s(offer: Offer) -> float:
        if rate_bytes_per_s <= 0:
            return math.inf
        return offer.edge_s + offer.payload_bytes / rate_bytes_per_s + offer.cloud_s

    in_time = [index for index, offer in enumerate(offers) if takes_s(offer) <= deadline_s]
    if in_time:
        return max(in_time, key=lambda index: (offers[index].quality, -offers[index].payload_bytes))
    return min(range(len(offers)), key=lambda index: (takes_s(offers[index]), index))


def _flows(transfers: list[Transfer], now: float) -> Flows:
    due_at_s = np.array(
        [transfer.request.deadline_at_s - transfer.terms.cloud_s for transfer in transfers]
    )
    ready_in_s = np.array([max(transfer.ready_at_s - now, 0.0) for transfer in transfers])
    return Flows(
        remaining_bytes=np.array([transfer.remaining_bytes for transfer in transfers]),
        open_ended=np.zeros(len(transfers), dtype=np.bool_),
        window_s=due_at_s - now - ready_in_s,
        due_at_s=due_at_s,
        ready=ready_in_s <= 0,
        late=due_at_s < now,
        arrived_s=np.array([transfer.request.arrival_s for transfer in transfers]),
        limit_bytes_per_s=np.full(len(transfers), np.inf),
        now=now,
    )


def _session(index: int) -> SessionId:
    return SessionId(f"request-{index}")


def _index(session: SessionId) -> int:
    return int(session.rpartition("-")[2])

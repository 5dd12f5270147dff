"""What the scheduler is told and what it decides.

This module owns the shapes of both. It does not know the wire: the cloud daemon makes events from
messages and messages from actions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from scout_core.allocation.capacity import CapacityObservation
from scout_core.allocation.offer import MAX_OFFERS, GroupId, Offer, Priority
from scout_core.errors import DeadlineError, RequestError
from scout_core.modes import AgentId, Mode, SessionId, TenantId


@dataclass(frozen=True, slots=True)
class AgentAttached:
    """An agent is there; a second one of the same id replaces the first.

    Attributes:
        agent, tenant, group: who, for whom, on which uplink.
        rate_limit_bytes_per_s: what its own access link carries; inf if unknown.
    """

    agent: AgentId
    tenant: TenantId
    group: GroupId
    rate_limit_bytes_per_s: float = math.inf


@dataclass(frozen=True, slots=True)
class AgentHeard:
    """A heartbeat: the agent lives, so its leases may be renewed."""

    agent: AgentId


@dataclass(frozen=True, slots=True)
class AgentDied:
    """Its control stream ended: all its requests are over."""

    agent: AgentId


@dataclass(frozen=True, slots=True)
class RequestArrived:
    """A session was opened.

    Attributes:
        session, agent: whose; the agent is attached.
        deadline_at_s: when the first token is due, on the clock of ``now``.
        offers: 1 to ``MAX_OFFERS`` feasible alternatives.
        priority: beside others of the tenant.

    Raises:
        RequestError, DeadlineError: no offers, too many, or a deadline that is no time.
    """

    session: SessionId
    agent: AgentId
    deadline_at_s: float
    offers: tuple[Offer, ...]
    priority: Priority = Priority.NORMAL

    def __post_init__(self) -> None:
        if not 1 <= len(self.offers) <= MAX_OFFERS:
            raise RequestError(
                f"A request needs 1 to {MAX_OFFERS} offers, session {self.session} has "
                f"{len(self.offers)}."
            )
        if not math.isfinite(self.deadline_at_s):
            raise DeadlineError(f"The deadline of session {self.session} must be a finite time.")


@dataclass(frozen=True, slots=True)
class RequestProgress:
    """Payload bytes received so far, in all, as the cloud counts them."""

    session: SessionId
    received_bytes: int


@dataclass(frozen=True, slots=True)
class RequestPromised:
    """Payload bytes that the session may have sent so far, in all: its credit.

    What is promised and has not arrived is on its way, or will be; it needs no rate any more, and
    the next in turn has it. A session that was told of none counts as having none.
    """

    session: SessionId
    promised_bytes: int


@dataclass(frozen=True, slots=True)
class RequestPaused:
    """The session has lost its stream, or has one again: without it no credit reaches the agent, so
    its share is lent to the others."""

    session: SessionId
    paused: bool


@dataclass(frozen=True, slots=True)
class RequestSwitched:
    """The agent sends another of its offers from the bytes reported so far on.

    A grant recommends an offer; what is sent is the agent's decision, and this event reports it.

    Attributes:
        session: whose.
        offer: column of the request's offers.
    """

    session: SessionId
    offer: int


@dataclass(frozen=True, slots=True)
class RequestFinished:
    """The payload is complete, or the session was given up."""

    session: SessionId


@dataclass(frozen=True, slots=True)
class CapacitySample:
    """One observation of a group's uplink, for learning."""

    group: GroupId
    observation: CapacityObservation


@dataclass(frozen=True, slots=True)
class CapacityConfigured:
    """The capacity of a group is now known to be this many bytes a second."""

    group: GroupId
    bytes_per_s: float


Event = (
    AgentAttached
    | AgentHeard
    | AgentDied
    | RequestArrived
    | RequestProgress
    | RequestPromised
    | RequestPaused
    | RequestSwitched
    | RequestFinished
    | CapacitySample
    | CapacityConfigured
)


@dataclass(frozen=True, slots=True)
class Grant:
    """A session may send so fast until the lease ends; replaces its grant before.

    Actions are to be carried out in order: shares are taken before they are given.

    Attributes:
        agent, session: who.
        rate_bytes_per_s: ≥ 0; 0: wait (the edge computes, or earlier deadlines go first).
        expires_at_s: end of the lease.
        offer: column of the request's offers that the rate was made for.
        mode, retention: of that offer.
    """

    agent: AgentId
    session: SessionId
    rate_bytes_per_s: float
    expires_at_s: float
    offer: int
    mode: Mode
    retention: float


class RejectCause(Enum):
    """Why a request is not served; the value is the name in logs and metrics."""

    CAPACITY = "capacity"
    """Not even the floors of all requests fit, and this one has the least to lose."""
    DEADLINE = "deadline"
    """Not even the whole uplink would bring any of its offers in time."""


@dataclass(frozen=True, slots=True)
class Reject:
    """A new request will not be served by its deadline and is told so at once.

    Attributes:
        agent, session: who.
        cause: why.
        retry_at_s: when to ask again, if nobody else comes.
        earliest_at_s: when its first token could then be there.
    """

    agent: AgentId
    session: SessionId
    cause: RejectCause
    retry_at_s: float
    earliest_at_s: float


class ReportKind(Enum):
    """What is worth a log line and a metric; the value is the name there."""

    DEADLINE_LOST = "deadline_lost"
    """A granted request will be late; it is served after the others from now on."""
    DEADLINE_REGAINED = "deadline_regained"
    """It can be in time after all."""
    LEASE_EXPIRED = "lease_expired"
    """The agent was not heard within a lease; its share is free."""
    FORGOTTEN = "forgotten"
    """A request without progress for too long was removed."""
    BEYOND_GRANT = "beyond_grant"
    """The agent sent more than it was granted; it gets nothing until that is paid off."""
    BEYOND_OFFER = "beyond_offer"
    """The payload is larger than its offer declared; the request is served after the others."""


@dataclass(frozen=True, slots=True)
class Report:
    """Something that people or dashboards should know.

    Attributes:
        kind: what.
        agent, session: who; no session where it concerns the agent as a whole.
        amount: bytes in excess, or the expected time of the first token in seconds, by kind.
    """

    kind: ReportKind
    agent: AgentId
    session: SessionId | None
    amount: float = 0.0


Action = Grant | Reject | Report

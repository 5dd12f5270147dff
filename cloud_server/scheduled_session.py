"""A session of a scheduled uplink: who wants to send what, and what it was granted.

Owns the shapes that ``uplink`` keeps its books with and the wording of a refusal. It knows neither
the scheduler's rules nor streams.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol, assert_never

from cloud_server.offers import Alternative
from cloud_server.seats import UplinkSeat
from scout_core.allocation.events import RejectCause, RequestArrived
from scout_core.errors import DeadlineError, OverloadedError, ScoutError
from scout_core.modes import AgentId, SessionId, TenantId
from scout_core.protocol import events
from scout_core.protocol.opening import UplinkShare

ENDING_S: Final = 0.1
"""Of the granted rate: between two solves it may end."""


class PacedSession(Protocol):
    """What is needed of a served session."""

    @property
    def received_bytes(self) -> int:
        """Payload received without a gap."""
        ...

    @property
    def credit_bytes(self) -> int:
        """Payload that it may have sent in all."""
        ...

    def promised_bytes(self, now: float) -> int:
        """Payload that it may have sent in all once its pacing is stopped."""
        ...

    @property
    def is_suspended(self) -> bool:
        """Whether it waits for another stream."""
        ...

    @property
    def switches(self) -> tuple[events.SwitchReceived, ...]:
        """The switches announced so far; none is missing of the bytes received."""
        ...

    def post(self, event: events.CloudEvent) -> None:
        """Hands the session an event."""
        ...


@dataclass(frozen=True, slots=True)
class Opening:
    """A session that wants to send: who, until when, in which ways, and how it is then accepted.

    ``opened`` is the column of ``alternatives`` that the edge means to send, ``most_bytes`` what no
    session that keeps to them sends; it never gets that much credit and more. ``round_trip_s`` is
    the smallest that the edge has measured; 0: unknown.
    """

    tenant: TenantId
    agent: AgentId
    session_id: SessionId
    deadline_at_s: float
    alternatives: tuple[Alternative, ...]
    opened: int
    most_bytes: int
    accept: events.AcceptDecided
    round_trip_s: float = 0.0

    @property
    def key(self) -> SessionId:
        """Ids are unique per agent and tenant only."""
        return SessionId(f"{self.tenant}/{self.agent}/{self.session_id}")


@dataclass(slots=True, eq=False)
class ScheduledSession:
    """One session under way.

    Attributes:
        rate_bytes_per_s, offer: of its latest grant; the offer is a column of ``alternatives``.
        booked_bytes, booked_switches: payload and switches that the scheduler was told of.
        booked_promise_bytes: payload that it was told the session may send.
        base_bytes: payload from before the agent attached anew; the scheduler counts from there.
        booked_suspension: whether it was told that the session has no stream.
        asked: column that the acceptance asked for.
        sent: column that the edge sends, as its open and its switches say.
    """

    opening: Opening
    seat: UplinkSeat
    port: PacedSession
    opened_s: float
    alternatives: tuple[Alternative, ...]
    sent: int
    accepted: bool = False
    rate_bytes_per_s: float = 0.0
    offer: int = 0
    asked: int = 0
    base_bytes: int = 0
    booked_bytes: int = 0
    booked_switches: int = 0
    booked_promise_bytes: int = 0
    booked_suspension: bool = False

    def arrival(self) -> RequestArrived:
        """The event that tells the scheduler of it."""
        return RequestArrived(
            self.opening.key,
            self.opening.agent,
            self.opening.deadline_at_s,
            tuple(alternative.offer for alternative in self.alternatives),
        )

    def begin_again(self, seat: UplinkSeat) -> None:
        """The agent attached anew: to the scheduler this is now a request for what is left."""
        self.seat, self.booked_suspension = seat, False
        received = self.port.received_bytes
        if received:
            going_on = self.alternatives[self.sent]
            self.alternatives = (going_on.left_after(received - self.base_bytes),)
            self.offer = self.asked = self.sent = 0
            self.base_bytes = self.booked_bytes = received

    @property
    def is_ending(self) -> bool:
        """Whether it has hardly anything left to send, by the size it declared."""
        declared = self.alternatives[self.sent].offer.payload_bytes
        left = declared - (self.port.received_bytes - self.base_bytes)
        return left < self.rate_bytes_per_s * ENDING_S

    @property
    def has_credit(self) -> bool:
        """Whether any credit was given to it."""
        return self.port.credit_bytes > 0

    def is_promised(self, now: float) -> bool:
        """Whether its credit, with what has gathered, covers the offer it was granted."""
        declared = self.alternatives[self.offer].offer.payload_bytes
        return self.port.promised_bytes(now) - self.base_bytes >= declared

    def share(self) -> UplinkShare:
        """What its edge is told."""
        chosen = self.alternatives[self.offer]
        terms = chosen.offer
        return UplinkShare(self.rate_bytes_per_s, terms.mode, terms.retention, chosen.execution)


def refusal(cause: RejectCause, retry_after_s: float, earliest_s: float) -> ScoutError:
    """The error that a rejected session ends with; it says when to come back."""
    match cause:
        case RejectCause.CAPACITY:
            return OverloadedError(
                f"The uplink is taken: ask again in {retry_after_s:.2f} s, or give a deadline of "
                f"more than {earliest_s:.2f} s, the earliest that a first token could be there.",
                retry_after_s=retry_after_s,
                earliest_s=earliest_s,
            )
        case RejectCause.DEADLINE:
            return DeadlineError(
                "Not even the whole uplink would bring a first token in time; give a deadline of "
                f"more than {earliest_s:.2f} s.",
                earliest_s=earliest_s,
            )
        case _:
            assert_never(cause)

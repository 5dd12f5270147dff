"""What the uplink's scheduler and the metrics are told of one session.

Owns whether and what is told; it knows neither the payload nor the answer.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from cloud_server.metrics import CloudMetrics
from cloud_server.scheduled_session import Opening
from cloud_server.seats import UplinkSeat
from cloud_server.uplink import Uplink
from scout_core.errors import CreditExceededError, ScoutError
from scout_core.modes import Mode, TenantId
from scout_core.protocol.actions import ApplySwitch

OUTCOME_OK = "OK"
OUTCOME_CANCELLED = "CANCELLED"


@dataclass(slots=True)
class SessionTracking:
    """One session as seen from outside.

    Args:
        tenant: whose session.
        mode: in which its payload starts.
        deadline_at_s: when its first token is due, on the monotonic clock.
        seat, opening: where its uplink is scheduled; both None where it is not.
    """

    metrics: CloudMetrics
    uplink: Uplink
    tenant: TenantId
    mode: Mode
    deadline_at_s: float
    seat: UplinkSeat | None = None
    opening: Opening | None = None
    answered: bool = False

    def switched(self, switch: ApplySwitch) -> None:
        """Blocks from here on are coded otherwise."""
        self.mode = switch.mode

    def suspended(self) -> None:
        """The session has no stream; others may have its share meanwhile."""
        if self.opening is not None:
            self.uplink.pause(self.opening.key)

    def payload_complete(self) -> None:
        """The session needs the uplink no more."""
        if self.opening is not None:
            self.uplink.finish(self.opening.key)

    def first_token(self) -> None:
        """The answer begins now."""
        in_time = time.monotonic() <= self.deadline_at_s
        group = self.seat.group if self.seat is not None else None
        self.metrics.first_token(group, self.tenant, self.mode, in_time=in_time)

    def answer_complete(self) -> None:
        """All of the answer was handed to the session."""
        self.answered = True
        self.metrics.session_ended(OUTCOME_OK)

    def ended(self, failure: ScoutError | None) -> None:
        """Nothing is left of the session; ``failure`` is what ended it early, if anything."""
        self.payload_complete()
        if isinstance(failure, CreditExceededError) and self.seat is not None:
            self.uplink.contain(self.seat.agent, self.seat.group)
        if not self.answered:
            self.metrics.session_ended(OUTCOME_CANCELLED if failure is None else failure.reason)

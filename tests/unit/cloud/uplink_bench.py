"""An uplink on a clock that the test moves, and sessions that only remember."""

from __future__ import annotations

from typing import Any

from cloud_server.metrics import CloudMetrics
from cloud_server.offers import Alternative, most_payload_bytes
from cloud_server.scheduled_session import Opening
from cloud_server.seats import Advice, UplinkSeat
from cloud_server.settings import CloudSettings
from cloud_server.uplink import Uplink
from scout_core.allocation.offer import GroupId, Offer
from scout_core.daemon.settings import load_settings
from scout_core.modes import AgentId, Execution, Mode, SessionId, TenantId
from scout_core.protocol import events
from scout_core.protocol.opening import ContextState

CAPACITY = 1_000_000.0
TENANT = TenantId("default")
ACCEPT = events.AcceptDecided(ContextState.ABSENT)
KV = Alternative(Offer(Mode.KV_BF16, 1.0, 800_000, 1.0), None)
INT8 = Alternative(Offer(Mode.KV_INT8, 1.0, 400_000, 0.95), None)
TOKENS = Alternative(Offer(Mode.SCOUT, 1.0, 2_000, 0.5), Execution.EVICT)
LADDER = (KV, INT8, TOKENS)


class FakeSession:
    """A served session that only remembers."""

    def __init__(self) -> None:
        self.received_bytes = self.credit_bytes = 0
        self.is_suspended = False
        self.switches: tuple[events.SwitchReceived, ...] = ()
        self.posted: list[events.CloudEvent] = []

    def promised_bytes(self, now: float) -> int:
        return self.credit_bytes

    def post(self, event: events.CloudEvent) -> None:
        self.posted.append(event)

    @property
    def accepted(self) -> events.AcceptDecided:
        (first,) = [event for event in self.posted if isinstance(event, events.AcceptDecided)]
        return first

    @property
    def rate_bytes_per_s(self) -> float | None:
        """What paces its credit now."""
        rates = [
            event.rate_bytes_per_s
            for event in self.posted
            if isinstance(event, events.AcceptDecided | events.RateAllocated)
        ]
        return rates[-1]


class Bench:
    """An uplink on a clock that the test moves."""

    def __init__(self, **settings: Any) -> None:
        values = {"uplink_capacity_bytes_per_s": {"cell": CAPACITY}} | settings
        self.now = 100.0
        self.metrics = CloudMetrics()
        self.uplink = Uplink(
            load_settings(CloudSettings, None, values), self.metrics, lambda: self.now
        )
        self.advice: list[Advice] = []

    def attach(self, agent: str, group: str = "cell", tenant: TenantId = TENANT) -> UplinkSeat:
        seat = UplinkSeat(AgentId(agent), tenant, GroupId(group), self.advice.append)
        self.uplink.attach(seat)
        return seat

    def open(
        self,
        seat: UplinkSeat,
        name: str = "s",
        deadline_s: float = 1.0,
        ways: tuple[Alternative, ...] = LADDER,
    ) -> FakeSession:
        session = FakeSession()
        due_s = self.now + deadline_s
        most = most_payload_bytes(ways, context_tokens=100)
        opening = Opening(TENANT, seat.agent, SessionId(name), due_s, ways, 0, most, ACCEPT)
        self.uplink.open(opening, seat, session)
        return session

    def run(
        self, seconds: float, step_s: float = 0.01, *, beats: tuple[UplinkSeat, ...] = ()
    ) -> None:
        for _ in range(round(seconds / step_s)):
            self.now += step_s
            for seat in beats:
                self.uplink.heard(seat)
            self.uplink.tick()

    def sample(self, name: str, **labels: str) -> float:
        value = self.metrics.registry.get_sample_value(f"scout_cloud_{name}", labels)
        return 0.0 if value is None else value

    @property
    def granted_bytes_per_s(self) -> float:
        return sum(session.rate_bytes_per_s for session in self.uplink.sessions())

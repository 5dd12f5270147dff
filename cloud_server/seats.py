"""The seats of the attached agents: who may open sessions on a scheduled uplink.

Owns who is attached under which tenant and group, and who is kept out for misconduct. It knows
neither shares nor streams; ``uplink`` tells the scheduler of whoever comes and goes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from scout_core.allocation.offer import GroupId
from scout_core.errors import OverloadedError, PeerUnavailableError
from scout_core.modes import AgentId, SessionId, TenantId
from scout_core.protocol.opening import UplinkShare

LONGEST_EXCLUSION_S: Final = 64.0


@dataclass(frozen=True, slots=True)
class Advice:
    """News for the agent of a session whose share is now made for another offer."""

    session_id: SessionId
    share: UplinkShare
    lease_s: float


@dataclass(frozen=True, slots=True, eq=False)
class UplinkSeat:
    """One attached agent; given back with ``Uplink.detach``."""

    agent: AgentId
    tenant: TenantId
    group: GroupId
    advise: Callable[[Advice], None]


@dataclass(frozen=True, slots=True)
class Exclusion:
    """No new session until then; it lasts ``length_s`` in all, and is remembered as long again."""

    until_s: float
    length_s: float

    def is_forgotten(self, now: float) -> bool:
        """Whether the agent has behaved, or was silent, for as long as it was kept out."""
        return now >= self.until_s + self.length_s


def next_exclusion(before: Exclusion | None, shortest_s: float, now: float) -> Exclusion:
    """For an offence now: twice as long as the one before if that is not forgotten, to a limit.

    An offence while the agent is kept out is another session's, opened before, and only begins the
    same exclusion anew.
    """
    if before is None or before.is_forgotten(now):
        length_s = shortest_s
    elif now < before.until_s:
        length_s = before.length_s
    else:
        length_s = min(2 * before.length_s, LONGEST_EXCLUSION_S)
    return Exclusion(now + length_s, length_s)


class Seating:
    """Seats by agent; a second agent of the same id takes the seat of the first."""

    def __init__(self) -> None:
        self._seats: dict[AgentId, UplinkSeat] = {}
        self._exclusions: dict[AgentId, Exclusion] = {}

    def __len__(self) -> int:
        return len(self._seats)

    @property
    def exclusions(self) -> int:
        """Agents that are kept out, or remembered for it."""
        return len(self._exclusions)

    def find(self, agent: AgentId) -> UplinkSeat | None:
        """The agent's seat; None if it is not attached."""
        return self._seats.get(agent)

    def holds(self, seat: UplinkSeat) -> bool:
        """Whether this is still the agent's seat, and not one that it left."""
        return self._seats.get(seat.agent) is seat

    def take(self, seat: UplinkSeat) -> None:
        """The agent sits here from now on."""
        self._seats[seat.agent] = seat

    def leave(self, seat: UplinkSeat) -> None:
        """The agent is gone; KeyError if it was not attached."""
        del self._seats[seat.agent]

    def require(self, agent: AgentId, tenant: TenantId) -> UplinkSeat:
        """The agent's seat under its tenant.

        Raises:
            PeerUnavailableError: it is not attached: its session would send past everybody's share.
        """
        seat = self._seats.get(agent)
        if seat is None or seat.tenant != tenant:
            raise PeerUnavailableError(
                f"Agent {agent} is not attached; this server schedules its uplinks, so open the "
                "control stream first."
            )
        return seat

    def keep_out(self, agent: AgentId, shortest_s: float, now: float) -> None:
        """No new session for the agent for a while; longer each time if it goes on."""
        exclusion = next_exclusion(self._exclusions.get(agent), shortest_s, now)
        # Whoever comes back under another name leaves its old one here.
        remembered = {a: e for a, e in self._exclusions.items() if not e.is_forgotten(now)}
        self._exclusions = remembered | {agent: exclusion}

    def expect_welcome(self, agent: AgentId, now: float) -> None:
        """Raises:
        OverloadedError: the agent is kept out for having exceeded its credit.
        """
        exclusion = self._exclusions.get(agent)
        kept_out_s = 0.0 if exclusion is None else exclusion.until_s - now
        if kept_out_s > 0:
            raise OverloadedError(
                f"Agent {agent} sent beyond its credit and is kept out for {kept_out_s:.1f} s; "
                "send only what was granted.",
                retry_after_s=round(kept_out_s, 3),
            )

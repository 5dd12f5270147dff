"""The attached agents, as the scheduler sees them.

This module owns who is there, when it was last heard and what it has open. It does not know rates.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from scout_core.allocation.conduct import ConductAccount
from scout_core.allocation.events import AgentAttached
from scout_core.modes import AgentId, SessionId


@dataclass(slots=True, eq=False)
class AgentSeat:
    """One attached agent.

    Attributes:
        attached: who it is and on which uplink.
        account: its conduct.
        heard_s: its last heartbeat or payload.
        sessions: what it has open, in the order of arrival (a dict used as an ordered set).
    """

    attached: AgentAttached
    account: ConductAccount
    heard_s: float
    sessions: dict[SessionId, None] = field(default_factory=dict[SessionId, None])

    @property
    def agent(self) -> AgentId:
        return self.attached.agent

    def may_send(self, now: float, lease_s: float) -> bool:
        """Whether it gets grants: heard within a lease, and not contained."""
        return self.heard_s + lease_s > now and not self.account.is_contained(now)

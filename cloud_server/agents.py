"""The agents attached to this server: who they are, what they last reported, when.

Pure bookkeeping with ``now`` passed in; the control servicer feeds it. Bounded by the number of
open control streams. It does not decide anything about sessions.
"""

from __future__ import annotations

from dataclasses import dataclass

from scout_core.modes import AgentId, Mode


@dataclass(slots=True)
class AttachedAgent:
    """One agent; heartbeat figures are the agent's own claims."""

    agent_id: AgentId
    modes: tuple[Mode, ...]
    uplink_group: str
    version: str
    attached_at_s: float
    heartbeat_at_s: float
    goodput_bytes_per_s: float = 0.0
    round_trip_s: float = 0.0
    requests_in_flight: int = 0
    last_mode: Mode | None = None


class AgentRegistry:
    """Agents by id. A second agent with the same id replaces the first."""

    def __init__(self) -> None:
        self._agents: dict[AgentId, AttachedAgent] = {}

    def attach(self, agent: AttachedAgent) -> None:
        self._agents[agent.agent_id] = agent

    def detach(self, agent: AttachedAgent) -> None:
        """Removes the agent unless another one has replaced it."""
        if self._agents.get(agent.agent_id) is agent:
            del self._agents[agent.agent_id]

    def is_current(self, agent: AttachedAgent) -> bool:
        return self._agents.get(agent.agent_id) is agent

    def all(self) -> tuple[AttachedAgent, ...]:
        return tuple(self._agents.values())

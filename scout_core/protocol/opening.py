"""What opens a session: the request as the edge states it to the cloud.

This module owns the fields of ``scout.v1.Open`` as plain values. It does not check whether the
request makes sense (the daemons do) and knows no protobuf.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from scout_core.modes import (
    AgentId,
    ContextHash,
    Execution,
    Mode,
    ModelFingerprint,
    PositionUnit,
    SessionId,
)
from scout_core.sampling import SamplingOptions

CAUSE_ALLOCATION: Final = "cloud_allocation"
"""Cause of a switch that the cloud's scheduler asked for (proto Switch.cause)."""


class ContextState(Enum):
    """What the cloud already holds of a context."""

    ABSENT = "absent"
    """Nothing: scout mode must send the token ids."""
    TOKENS = "tokens"
    """The token ids."""
    KV = "kv"
    """The token ids and a full KV cache."""


@dataclass(frozen=True, slots=True)
class Offer:
    """One way in which the edge could serve the request."""

    mode: Mode
    retention: float
    payload_bytes: int
    expected_quality: float
    edge_s: float
    execution: Execution | None = None
    """Of a selection in scout mode; None: the cloud chooses."""


@dataclass(frozen=True, slots=True)
class UplinkShare:
    """What the cloud's scheduler gives a session of a scheduled uplink, and what it should carry.

    ``rate_bytes_per_s`` may be 0: the session waits. Mode, retention and execution are those of the
    offer that the share was made for: a recommendation.
    """

    rate_bytes_per_s: float
    mode: Mode
    retention: float
    execution: Execution | None = None


@dataclass(frozen=True, slots=True)
class OpenParameters:
    """The request. ``deadline_s`` counts from the moment the message is sent.

    ``round_trip_s`` is the smallest round trip the edge has measured; 0: unknown.
    ``execution`` is None when the cloud may choose.
    """

    session_id: SessionId
    agent_id: AgentId
    model_fingerprint: ModelFingerprint
    context_hash: ContextHash
    context_tokens: int
    question: str
    mode: Mode
    retention: float
    deadline_s: float
    execution: Execution | None = None
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    expected_payload_bytes: int = 0
    round_trip_s: float = 0.0
    offers: tuple[Offer, ...] = ()
    position_unit: PositionUnit = PositionUnit.CLOUD_TOKENS
    context_characters: int = 0
    """Only where positions are characters; ``context_tokens`` is the edge's estimate there."""

    def names_same_request(self, other: OpenParameters) -> bool:
        """Whether ``other`` may resume the session that ``self`` opened.

        Mode, retention, deadline, round trip and offers may have changed on the way.
        """
        return (
            self.session_id == other.session_id
            and self.agent_id == other.agent_id
            and self.model_fingerprint == other.model_fingerprint
            and self.context_hash == other.context_hash
            and self.context_tokens == other.context_tokens
            and self.position_unit is other.position_unit
            and self.context_characters == other.context_characters
            and self.question == other.question
            and self.sampling == other.sampling
        )

"""How one session of a question is opened: what the cloud is told, and what is sent at once.

Owns the session that is planned and its ``OpenParameters``. It starts nothing and reads no clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from edge_agent.cloud_view import CloudView
from edge_agent.host import EdgeHost
from edge_agent.planning import Plan, Question, requested_execution
from scout_core.control.forecast import TransferForecast
from scout_core.daemon.contexts import text_hash
from scout_core.modes import AgentId, PositionUnit, SessionId
from scout_core.protocol.edge_session import EdgeTimeouts
from scout_core.protocol.opening import Offer, OpenParameters
from scout_core.protocol.payload_sender import SendPolicy
from scout_core.rpc.session_client import SessionOptions

MAX_OFFERS: Final = 16
FIRST_BURST_S: Final = 0.5
SMALLEST_BURST_BYTES: Final = 4_096
"""Scout mode's whole payload for contexts of about 2,000 tokens."""


@dataclass(frozen=True, slots=True)
class PlannedSession:
    """A session for the question, before it begins.

    Attributes:
        session_id: new with every attempt.
        question, plan: what is asked, and how this end would serve it.
        view: the cloud it goes to, as known when it was planned.
        is_guided: whether the cloud's scheduler may choose another of the plan's offers.
    """

    session_id: SessionId
    question: Question
    plan: Plan
    view: CloudView
    is_guided: bool


def session_options(host: EdgeHost, view: CloudView, forecast: TransferForecast) -> SessionOptions:
    """How the session's machine sends on a link of this forecast."""
    settings = host.settings
    return SessionOptions(
        tenant=host.tenant,
        send_policy=SendPolicy(
            chunk_bytes=view.chunk_bytes(settings.chunk_bytes),
            initial_credit_bytes=_first_burst(view, forecast),
        ),
        timeouts=EdgeTimeouts(resume_window_s=settings.resume_window_s),
        lookahead_bytes=settings.lookahead_bytes,
        largest_message_bytes=view.largest_message_bytes,
    )


def _first_burst(view: CloudView, forecast: TransferForecast) -> int:
    """Payload sent before the cloud answers: what the link carries in a moment, at most.

    On a slow link a full first credit would queue for seconds in front of the heartbeats.
    """
    likely = int(forecast.median_bytes_per_s * FIRST_BURST_S)
    return min(view.initial_credit_bytes, max(likely, SMALLEST_BURST_BYTES))


def open_parameters(
    planned: PlannedSession, agent_id: AgentId, round_trip_s: float, now: float
) -> OpenParameters:
    """What the cloud is told of the session at ``now`` (``time.monotonic`` seconds)."""
    question, plan, view = planned.question, planned.plan, planned.view
    offer, text = plan.offer, question.stored.text
    in_characters = plan.unit is PositionUnit.CHARACTERS
    # A scheduler that may not choose has to reckon with what will be sent.
    fixed = view.uplink_scheduled and not planned.is_guided
    return OpenParameters(
        session_id=planned.session_id,
        agent_id=agent_id,
        model_fingerprint=view.model.fingerprint,
        context_hash=text_hash(text) if in_characters else question.key,
        context_tokens=len(question.stored.tokens),
        question=question.parameters.question,
        mode=offer.mode,
        retention=offer.retention,
        deadline_s=question.time_left_s(now),
        execution=requested_execution(offer),
        sampling=question.parameters.sampling,
        expected_payload_bytes=offer.payload_bytes,
        round_trip_s=round_trip_s,
        position_unit=plan.unit,
        context_characters=len(text) if in_characters else 0,
        offers=tuple(
            Offer(
                other.mode,
                other.retention,
                other.payload_bytes,
                other.quality,
                other.edge_s,
                requested_execution(other),
            )
            for other in ((offer,) if fixed else plan.offers[:MAX_OFFERS])
        ),
    )

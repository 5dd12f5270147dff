"""What the application is told of its request: how it is served, and what came of it.

Owns the ``Started`` and ``Finished`` messages, figure by figure. It decides and measures nothing.
"""

from __future__ import annotations

from typing import Final

from scout.v1 import inference_pb2, types_pb2

from edge_agent.attempts import Attempts
from edge_agent.host import EdgeHost
from edge_agent.opening import PlannedSession
from edge_agent.planning import requested_execution
from edge_agent.session import QuestionSession
from scout_core.control.offers import Offer
from scout_core.modes import Mode
from scout_core.protocol.actions import DeliverToken
from scout_core.protocol.answer import AnswerSummary
from scout_core.rpc.messages import EXECUTION_TO_WIRE, MODE_TO_WIRE, UNIT_TO_WIRE
from scout_core.rpc.registration import ModelDescription
from scout_core.rpc.session_wire import REASON_TO_WIRE

NO_SELECTOR: Final = "none"
WITHOUT_TRANSFORM: Final = (
    "KV went as plain groups: the cloud does not hold this agent's transform for the model"
)


def started_response(planned: PlannedSession, host: EdgeHost) -> inference_pb2.GenerateResponse:
    """The decision, before anything is sent."""
    question, plan = planned.question, planned.plan
    offer, decision = plan.offer, plan.decision
    return inference_pb2.GenerateResponse(
        started=inference_pb2.Started(
            session_id=planned.session_id,
            mode=MODE_TO_WIRE[offer.mode],
            forced=question.parameters.mode is not None,
            retention=offer.retention,
            execution=EXECUTION_TO_WIRE[requested_execution(offer)],
            selector=_selector(offer, host),
            context_tokens=len(question.stored.tokens),
            predicted_payload_bytes=offer.payload_bytes,
            predicted_ttft_s=decision.predicted_ttft_s,
            predicted_compliance=decision.probability,
            expected_quality=offer.quality,
            link_bytes_per_s=plan.link_bytes_per_s,
            reason=decision.reason,
            numerics=_numerics(offer.mode, host, planned.view.model),
            position_unit=UNIT_TO_WIRE[plan.unit],
        )
    )


def _selector(offer: Offer, host: EdgeHost) -> str:
    """What scores the positions of a selection."""
    if offer.retention >= 1.0:
        return NO_SELECTOR
    model = host.scout if offer.mode is Mode.SCOUT else host.replica_scorer
    return model.selector_name if model else NO_SELECTOR


def _numerics(mode: Mode, host: EdgeHost, cloud: ModelDescription) -> str:
    """Whether the edge's KV is rounded on its way; empty for modes without KV."""
    replica = host.replica
    if not mode.carries_kv or replica is None:
        return ""
    if replica.compute_dtype == cloud.compute_dtype == "bfloat16":
        return ""
    return (
        f"edge computes in {replica.compute_dtype}, KV is rounded to bfloat16 on the wire, "
        f"cloud computes in {cloud.compute_dtype}"
    )


def token_response(delivered: DeliverToken) -> inference_pb2.GenerateResponse:
    """One token of the answer."""
    text, token_id = delivered.token.text, delivered.token.token_id
    return inference_pb2.GenerateResponse(
        token=inference_pb2.Token(text=text, token_id=token_id, index=delivered.index)
    )


def finished_response(
    session: QuestionSession,
    summary: AnswerSummary,
    earlier: Attempts,
    ttft_s: float,
    now: float,
) -> inference_pb2.GenerateResponse:
    """What the request took, failed attempts included.

    Args:
        session: that answered.
        summary: the cloud's part.
        earlier: what was spent before it.
        ttft_s: time to first token.
        now: ``time.monotonic`` seconds, for the time in all.
    """
    question, times = session.planned.question, session.source.times
    measured = session.client.measurements
    return inference_pb2.GenerateResponse(
        finished=inference_pb2.Finished(
            finish_reason=REASON_TO_WIRE[summary.finish_reason],
            mode=MODE_TO_WIRE[session.source.mode],
            degradation=_degradation(session, summary, earlier),
            bytes=_bytes(session, summary, earlier),
            timing=inference_pb2.Timing(
                ttft_s=ttft_s,
                total_s=question.elapsed_s(now),
                edge_prefill_s=times.prefill_s,
                edge_score_s=times.score_s,
                edge_encode_s=times.encode_s,
                transfer_s=measured.transfer_s,
                cloud_inject_s=summary.inject_s,
                cloud_prefill_s=summary.prefill_s,
                cloud_queue_s=summary.queue_s,
                deadline_s=question.deadline_s,
            ),
            answer_tokens=summary.answer_tokens,
            context_tokens=summary.context_tokens,
            kept_tokens=summary.kept_tokens,
            deadline_met=ttft_s <= question.deadline_s,
            kv_codecs="+".join(times.kv_codecs),
        )
    )


def _degradation(session: QuestionSession, summary: AnswerSummary, earlier: Attempts) -> str:
    """All that did not go as planned; empty if nothing."""
    resumes = session.client.measurements.resumes
    said = [*earlier.degradation, summary.degradation]
    if resumes:
        said.append(f"resumed {resumes} times")
    if session.source.times.without_transform:
        said.append(WITHOUT_TRANSFORM)
    return "; ".join(filter(None, said))


def _bytes(
    session: QuestionSession, summary: AnswerSummary, earlier: Attempts
) -> types_pb2.ByteCount:
    """Bytes of all attempts, beside what the whole cache would have been."""
    client, measured = session.client, session.client.measurements
    return types_pb2.ByteCount(
        uplink_bytes=earlier.uplink_bytes + measured.uplink_bytes,
        downlink_bytes=earlier.downlink_bytes + measured.downlink_bytes,
        payload_bytes=earlier.payload_bytes + client.payload_bytes,
        indices_bytes=session.source.times.indices_bytes,
        kv_bf16_bytes=session.planned.view.model.geometry.bf16_bytes(summary.context_tokens),
    )

"""Serves one question: plan, payload, session, answer, accounting.

Owns the order of things for one request, second attempts included; when there is one is
``attempts``'. It yields protocol messages; the servicer only passes them on.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import grpc
import structlog
from scout.v1 import inference_pb2, types_pb2

from edge_agent.attachment import Attachment, CloudView
from edge_agent.attempts import Attempts, Patience
from edge_agent.guidance import Guidance
from edge_agent.host import EdgeHost
from edge_agent.payload import PayloadSource
from edge_agent.planning import Plan, Planner, Question, requested_execution
from edge_agent.recent_requests import RequestResult
from edge_agent.steering import Steering
from scout_core.control.forecast import TransferForecast
from scout_core.control.offers import CloudContext
from scout_core.control.policies import policy_named
from scout_core.daemon.contexts import text_hash
from scout_core.errors import PeerUnavailableError, UnknownContextError
from scout_core.modes import AgentId, Execution, Mode, PositionUnit, SessionId
from scout_core.protocol import actions
from scout_core.protocol.answer import AnswerSummary
from scout_core.protocol.edge_session import EdgeTimeouts
from scout_core.protocol.opening import ContextState, Offer, OpenParameters
from scout_core.protocol.payload_sender import SendPolicy
from scout_core.rpc.messages import EXECUTION_TO_WIRE, MODE_TO_WIRE, UNIT_TO_WIRE
from scout_core.rpc.session_client import Outcome, SessionClient, SessionOptions
from scout_core.rpc.session_wire import REASON_TO_WIRE

MAX_OFFERS: int = 16
NO_SELECTOR = "none"
WITHOUT_TRANSFORM = (
    "KV went as plain groups: the cloud does not hold this agent's transform for the model"
)
FIRST_BURST_S = 0.5
SMALLEST_BURST_BYTES = 4_096
"""Scout mode's whole payload for contexts of about 2,000 tokens."""
FREE_POLICY = "ours"
"""Chooses retention and execution where the caller forces the mode, whatever policy is set."""
log = structlog.get_logger("scout.edge.request")

CONTEXT_STATES = {
    ContextState.ABSENT: CloudContext.ABSENT,
    ContextState.TOKENS: CloudContext.TOKENS,
    ContextState.KV: CloudContext.KV,
}


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One session for the question: how it is served, and by what."""

    plan: Plan
    view: CloudView
    client: SessionClient
    source: PayloadSource
    forecast: TransferForecast
    """Of the link, when the attempt began."""
    outcomes: asyncio.Queue[Outcome | None]
    guidance: Guidance | None = None
    """Where the uplink is scheduled and the caller leaves the choice."""


class RequestRun:
    """One question on its way. Iterate ``responses`` once."""

    def __init__(
        self,
        host: EdgeHost,
        attachment: Attachment,
        channel: grpc.aio.Channel,
        question: Question,
    ) -> None:
        self.session_id = SessionId(uuid.uuid4().hex)
        self._host = host
        self._attachment = attachment
        self._channel = channel
        self._question = question
        self._attempts = Attempts(question)
        self._patience = Patience(
            question.arrived_s + question.deadline_s, host.settings.overdue_grace_s
        )
        self._ttft_s = 0.0
        self._latest: _Attempt | None = None
        self.answered = False

    async def responses(self) -> AsyncGenerator[inference_pb2.GenerateResponse]:
        """Started, tokens, finished.

        Raises:
            ScoutError: the request cannot be served, or was given up.
        """
        view = await self._attachment.view_by(self._patience.ends_at())
        plan = self._plan(view)
        yield self._started(plan, view)
        while True:
            attempt = self._latest = self._attempt(plan, view)
            try:
                async with aclosing(self._serve(attempt)) as responses:
                    async for response in responses:
                        yield response
            except (UnknownContextError, PeerUnavailableError) as error:
                client = attempt.client
                self._question = self._attempts.again(
                    error, client.measurements, client.payload_bytes
                )
                self._latest = None  # among the earlier attempts now
                log.info("request_asked_again", session=self.session_id, reason=error.reason)
                # Whatever we believed it holds: send the tokens this time.
                self._note_context(CloudContext.ABSENT)
                self.session_id = SessionId(uuid.uuid4().hex)
                view = self._attachment.view or view
                plan = self._plan(view)
            else:
                return

    def result(self, outcome: str) -> RequestResult:
        """What status remembers of the request if it ends now."""
        latest, deadline_s = self._latest, self._question.deadline_s
        payload_bytes = self._attempts.payload_bytes
        if latest is None:
            return RequestResult(
                outcome, self.session_id, payload_bytes=payload_bytes, deadline_s=deadline_s
            )
        return RequestResult(
            outcome,
            self.session_id,
            latest.source.mode,
            latest.source.plan.offer.retention,
            payload_bytes + latest.client.payload_bytes,
            self._ttft_s,
            deadline_s,
        )

    def _plan(self, view: CloudView) -> Plan:
        forced = self._question.parameters.mode is not None
        policy = policy_named(FREE_POLICY if forced else self._host.settings.policy)
        planner = Planner(self._host, policy)
        return planner.plan(self._question, view, self._attachment.round_trip_s, time.monotonic())

    def _attempt(self, plan: Plan, view: CloudView) -> _Attempt:
        outcomes: asyncio.Queue[Outcome | None] = asyncio.Queue()
        guidance = Guidance(plan) if self._is_guided(view) else None

        def on_outcome(outcome: Outcome) -> None:
            # At once, and not when the application takes what came before: the payload waits.
            if guidance is not None and isinstance(outcome, actions.SessionAccepted):
                guidance.accept(outcome.share)
            outcomes.put_nowait(outcome)

        client = SessionClient(
            self._channel,
            self._session_options(view),
            on_outcome,
            self._host.estimator,
        )
        machine = client.machine
        steering = Steering(
            self._host,
            view,
            self._question,
            plan,
            lambda: machine.unacked_bytes + machine.unsent_bytes,
            self._attachment.round_trip_s,
            guidance,
        )
        if guidance is not None:
            steering.turn = client.credited
        source = PayloadSource(self._host, self._question, plan, steering)
        forecast = self._host.estimator.forecast(time.monotonic(), self._attachment.round_trip_s)
        return _Attempt(plan, view, client, source, forecast, outcomes, guidance)

    def _is_guided(self, view: CloudView) -> bool:
        """Whether the cloud's scheduler may choose: the caller and the operator forced nothing."""
        return (
            view.uplink_scheduled
            and self._question.parameters.mode is None
            and self._host.settings.policy == FREE_POLICY
        )

    async def _serve(self, attempt: _Attempt) -> AsyncGenerator[inference_pb2.GenerateResponse]:
        opening = self._open(attempt)
        if attempt.guidance is not None:
            self._attachment.advised[self.session_id] = attempt.guidance.advise
        running = asyncio.create_task(attempt.client.run(opening, attempt.source.items()))
        running.add_done_callback(lambda _: attempt.outcomes.put_nowait(None))
        try:
            while (outcome := await self._next(attempt)) is not None:
                match outcome:
                    case actions.SessionAccepted(context_state, _, _):
                        self._note_context(CONTEXT_STATES[context_state])
                    case actions.DeliverToken(token, index):
                        self._ttft_s = self._ttft_s or self._elapsed_s()
                        self._attempts.delivered_tokens += 1
                        yield inference_pb2.GenerateResponse(
                            token=inference_pb2.Token(
                                text=token.text, token_id=token.token_id, index=index
                            )
                        )
                    case actions.Complete(summary):
                        # An empty answer is complete when its end arrives.
                        self._ttft_s = self._ttft_s or self._elapsed_s()
                        self._note_computed(attempt.source.plan, summary)
                        self._note_transfer(attempt)
                        yield self._finished(attempt, summary)
            await running
        finally:
            self._attachment.advised.pop(opening.session_id, None)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def _next(self, attempt: _Attempt) -> Outcome | None:
        """The next outcome; None: there will be no more.

        Raises:
            PeerTimeoutError: the first token is overdue and the cloud is silent.
        """
        while self._ttft_s == 0.0:
            heard_s = attempt.client.heard_s
            wait_s = self._patience.ends_at(heard_s) - time.monotonic()
            try:
                async with asyncio.timeout(wait_s):
                    return await attempt.outcomes.get()
            except TimeoutError:
                if attempt.client.heard_s == heard_s:
                    raise self._patience.overdue(heard_s, time.monotonic()) from None
        return await attempt.outcomes.get()

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._question.arrived_s

    def _session_options(self, view: CloudView) -> SessionOptions:
        settings = self._host.settings
        return SessionOptions(
            tenant=self._host.tenant,
            send_policy=SendPolicy(
                chunk_bytes=settings.chunk_bytes, initial_credit_bytes=self._first_burst(view)
            ),
            timeouts=EdgeTimeouts(resume_window_s=settings.resume_window_s),
            lookahead_bytes=settings.lookahead_bytes,
        )

    def _first_burst(self, view: CloudView) -> int:
        """Payload sent before the cloud answers: what the link carries in a moment, at most.

        On a slow link a full first credit would queue for seconds in front of the heartbeats.
        """
        forecast = self._host.estimator.forecast(time.monotonic(), self._attachment.round_trip_s)
        likely = int(forecast.median_bytes_per_s * FIRST_BURST_S)
        return min(view.initial_credit_bytes, max(likely, SMALLEST_BURST_BYTES))

    def _open(self, attempt: _Attempt) -> OpenParameters:
        question, plan, view = self._question, attempt.plan, attempt.view
        offer, text = plan.offer, question.stored.text
        in_characters = plan.unit is PositionUnit.CHARACTERS
        # A scheduler that may not choose has to reckon with what will be sent.
        fixed = view.uplink_scheduled and attempt.guidance is None
        return OpenParameters(
            session_id=self.session_id,
            agent_id=AgentId(self._host.settings.agent_id),
            model_fingerprint=view.model.fingerprint,
            context_hash=text_hash(text) if in_characters else question.key,
            context_tokens=len(question.stored.tokens),
            question=question.parameters.question,
            mode=offer.mode,
            retention=offer.retention,
            deadline_s=question.deadline_s - self._elapsed_s(),
            execution=requested_execution(offer),
            sampling=question.parameters.sampling,
            expected_payload_bytes=offer.payload_bytes,
            round_trip_s=self._attachment.round_trip_s,
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

    def _note_context(self, state: CloudContext) -> None:
        self._host.beliefs.note(self._question.key, state, time.monotonic())

    def _note_computed(self, plan: Plan, summary: AnswerSummary) -> None:
        """After evict the cloud holds the whole cache; after sparse with all tokens, those."""
        if plan.offer.mode is not Mode.SCOUT:
            return
        if summary.execution is Execution.EVICT:
            self._note_context(CloudContext.KV)

    def _note_transfer(self, attempt: _Attempt) -> None:
        """Where the transfer's time fell in its forecast corrects the later ones.

        Not after a resume: the time of an outage is not the link's, and it is not known.
        """
        client = attempt.client
        if client.measurements.resumes == 0 and client.machine.unacked_bytes == 0:
            self._host.estimator.settle(
                attempt.forecast, client.payload_bytes, client.measurements.busy_s
            )

    def _selector(self, plan: Plan) -> str:
        if plan.offer.retention >= 1.0:
            return NO_SELECTOR
        model = self._host.scout if plan.offer.mode is Mode.SCOUT else self._host.replica_scorer
        return model.selector_name if model else NO_SELECTOR

    def _started(self, plan: Plan, view: CloudView) -> inference_pb2.GenerateResponse:
        offer, decision = plan.offer, plan.decision
        execution = requested_execution(offer)
        return inference_pb2.GenerateResponse(
            started=inference_pb2.Started(
                session_id=self.session_id,
                mode=MODE_TO_WIRE[offer.mode],
                forced=self._question.parameters.mode is not None,
                retention=offer.retention,
                execution=EXECUTION_TO_WIRE[execution],
                selector=self._selector(plan),
                context_tokens=len(self._question.stored.tokens),
                predicted_payload_bytes=offer.payload_bytes,
                predicted_ttft_s=decision.predicted_ttft_s,
                predicted_compliance=decision.probability,
                expected_quality=offer.quality,
                link_bytes_per_s=plan.link_bytes_per_s,
                reason=decision.reason,
                numerics=self._numerics(plan, view),
                position_unit=UNIT_TO_WIRE[plan.unit],
            )
        )

    def _numerics(self, plan: Plan, view: CloudView) -> str:
        """Whether the edge's KV is rounded on its way; empty for modes without KV."""
        replica = self._host.replica
        if not plan.offer.mode.carries_kv or replica is None:
            return ""
        if replica.compute_dtype == view.model.compute_dtype == "bfloat16":
            return ""
        return (
            f"edge computes in {replica.compute_dtype}, KV is rounded to bfloat16 on the wire, "
            f"cloud computes in {view.model.compute_dtype}"
        )

    def _finished(
        self, attempt: _Attempt, summary: AnswerSummary
    ) -> inference_pb2.GenerateResponse:
        question, source, earlier = self._question, attempt.source, self._attempts
        times, measured = source.times, attempt.client.measurements
        geometry = attempt.view.model.geometry
        degradation = [*earlier.degradation, summary.degradation]
        if measured.resumes:
            degradation.append(f"resumed {measured.resumes} times")
        if times.without_transform:
            degradation.append(WITHOUT_TRANSFORM)
        self.answered = True
        return inference_pb2.GenerateResponse(
            finished=inference_pb2.Finished(
                finish_reason=REASON_TO_WIRE[summary.finish_reason],
                mode=MODE_TO_WIRE[source.mode],
                degradation="; ".join(filter(None, degradation)),
                bytes=types_pb2.ByteCount(
                    uplink_bytes=earlier.uplink_bytes + measured.uplink_bytes,
                    downlink_bytes=earlier.downlink_bytes + measured.downlink_bytes,
                    payload_bytes=earlier.payload_bytes + attempt.client.payload_bytes,
                    indices_bytes=times.indices_bytes,
                    kv_bf16_bytes=geometry.bf16_bytes(summary.context_tokens),
                ),
                timing=inference_pb2.Timing(
                    ttft_s=self._ttft_s,
                    total_s=self._elapsed_s(),
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
                deadline_met=self._ttft_s <= question.deadline_s,
                kv_codecs="+".join(times.kv_codecs),
            )
        )

"""Serves one question: plan, session, answer, what is learnt from it.

Owns the order of things for one request, second attempts included; when there is one is
``attempts``'. It yields protocol messages, which ``responses`` makes; the servicer only passes them
on.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

import grpc
import structlog
from scout.v1 import inference_pb2

from edge_agent.attachment import Attachment
from edge_agent.attempts import Attempts, Patience
from edge_agent.cloud_view import CloudView
from edge_agent.host import EdgeHost
from edge_agent.opening import PlannedSession, open_parameters
from edge_agent.planning import Plan, Planner, Question
from edge_agent.recent_requests import RequestResult
from edge_agent.responses import finished_response, started_response, token_response
from edge_agent.session import QuestionSession, session_of
from scout_core.control.offers import CloudContext
from scout_core.control.policies import policy_named
from scout_core.errors import PeerUnavailableError, UnknownContextError
from scout_core.modes import AgentId, Execution, Mode, SessionId
from scout_core.protocol import actions
from scout_core.protocol.answer import AnswerSummary
from scout_core.protocol.opening import ContextState

FREE_POLICY: Final = "ours"
"""Chooses retention and execution where the caller forces the mode, whatever policy is set."""
log = structlog.get_logger("scout.edge.request")

CONTEXT_STATES: Final = {
    ContextState.ABSENT: CloudContext.ABSENT,
    ContextState.TOKENS: CloudContext.TOKENS,
    ContextState.KV: CloudContext.KV,
}


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
        self._latest: QuestionSession | None = None
        self.answered = False

    async def responses(self) -> AsyncGenerator[inference_pb2.GenerateResponse]:
        """Started, tokens, finished.

        Raises:
            ScoutError: the request cannot be served, or was given up.
        """
        planned = self._planned(await self._attachment.view_by(self._patience.ends_at()))
        yield started_response(planned, self._host)
        while True:
            session = session_of(planned, self._host, self._attachment, self._channel)
            self._latest = session
            try:
                async with aclosing(self._serve(session)) as answer:
                    async for response in answer:
                        yield response
            except (UnknownContextError, PeerUnavailableError) as error:
                client = session.client
                self._question = self._attempts.again(
                    error, client.measurements, client.payload_bytes
                )
                self._latest = None  # among the earlier attempts now
                log.info("request_asked_again", session=self.session_id, reason=error.reason)
                # Whatever we believed it holds: send the tokens this time.
                self._note_context(CloudContext.ABSENT)
                self.session_id = SessionId(uuid.uuid4().hex)
                planned = self._planned(self._attachment.view or planned.view)
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

    def _planned(self, view: CloudView) -> PlannedSession:
        """The session to open with this cloud.

        The cloud's scheduler may choose where neither the caller nor the operator forced anything.
        """
        question, configured = self._question, self._host.settings.policy
        forced = question.parameters.mode is not None
        planner = Planner(self._host, policy_named(FREE_POLICY if forced else configured))
        plan = planner.plan(question, view, self._attachment.round_trip_s, time.monotonic())
        is_guided = view.uplink_scheduled and not forced and configured == FREE_POLICY
        return PlannedSession(self.session_id, question, plan, view, is_guided)

    async def _serve(
        self, session: QuestionSession
    ) -> AsyncGenerator[inference_pb2.GenerateResponse]:
        opening = open_parameters(
            session.planned,
            AgentId(self._host.settings.agent_id),
            self._attachment.round_trip_s,
            time.monotonic(),
        )
        if session.guidance is not None:
            self._attachment.advised[opening.session_id] = session.guidance.advise
        running = asyncio.create_task(session.client.run(opening, session.source.items()))
        running.add_done_callback(lambda _: session.outcomes.put_nowait(None))
        try:
            while (outcome := await session.next_outcome(self._waiting)) is not None:
                match outcome:
                    case actions.SessionAccepted(context_state, _, _):
                        self._note_context(CONTEXT_STATES[context_state])
                    case actions.DeliverToken():
                        self._note_first_token()
                        self._attempts.delivered_tokens += 1
                        yield token_response(outcome)
                    case actions.Complete(summary):
                        # An empty answer is complete when its end arrives.
                        self._note_first_token()
                        self._note_computed(session.source.plan, summary)
                        self._note_transfer(session)
                        self.answered = True
                        yield finished_response(
                            session, summary, self._attempts, self._ttft_s, time.monotonic()
                        )
            await running
        finally:
            self._attachment.advised.pop(opening.session_id, None)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    @property
    def _waiting(self) -> Patience | None:
        """Patience with the first token, until it is there."""
        return self._patience if self._ttft_s == 0.0 else None

    def _note_first_token(self) -> None:
        self._ttft_s = self._ttft_s or self._question.elapsed_s(time.monotonic())

    def _note_context(self, state: CloudContext) -> None:
        self._host.beliefs.note(self._question.key, state, time.monotonic())

    def _note_computed(self, plan: Plan, summary: AnswerSummary) -> None:
        """After evict the cloud holds the whole cache."""
        if plan.offer.mode is Mode.SCOUT and summary.execution is Execution.EVICT:
            self._note_context(CloudContext.KV)

    def _note_transfer(self, session: QuestionSession) -> None:
        """Where the transfer's time fell in its forecast corrects the later ones.

        Not after a resume: the time of an outage is not the link's, and it is not known.
        """
        client = session.client
        if client.measurements.resumes == 0 and client.machine.unacked_bytes == 0:
            self._host.estimator.settle(
                session.forecast, client.payload_bytes, client.measurements.busy_s
            )

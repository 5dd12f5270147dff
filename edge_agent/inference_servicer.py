"""InferenceService and status on the edge: what applications call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Final

import grpc
import structlog
from scout.v1 import control_pb2, inference_pb2

from edge_agent.attachment import Attachment
from edge_agent.host import EdgeHost, StoredEdgeContext
from edge_agent.planning import Question
from edge_agent.recent_requests import (
    OUTCOME_CANCELLED,
    OUTCOME_OK,
    RecentRequests,
    RequestResult,
)
from edge_agent.request_run import RequestRun
from scout_core.errors import (
    DrainingError,
    OverloadedError,
    ScoutError,
    UnknownModelError,
)
from scout_core.modes import ContextHash, Mode
from scout_core.rpc.registration import model_message
from scout_core.rpc.requests import (
    ContextReference,
    GenerateParameters,
    validate_context_text,
    validate_generate,
)
from scout_core.version import VERSION

RETRY_AFTER_S: Final = 1.0
Context = grpc.aio.ServicerContext[Any, Any]
log = structlog.get_logger("scout.edge.inference")


class InferenceServicer:
    """Generate, PutContext and GetStatus of the edge agent."""

    def __init__(
        self, host: EdgeHost, attachment: Attachment, data_channel: grpc.aio.Channel
    ) -> None:
        self._host = host
        self._attachment = attachment
        self._channel = data_channel
        self._recent = RecentRequests()
        self.draining = False
        self.idle = asyncio.Event()
        self.idle.set()

    async def put_context(
        self, request: inference_pb2.PutContextRequest, context: Context
    ) -> inference_pb2.PutContextResponse:
        """Stores a context and prefills it, so that the first question finds its KV ready."""
        del context
        self._admit()
        key, stored = self._host.put_context(validate_context_text(request.context_text))
        await self._host.prefill_ahead(key, stored)
        return inference_pb2.PutContextResponse(
            context_hash=key,
            context_tokens=len(stored.tokens),
            time_to_live_s=self._host.contexts.time_to_live_s,
        )

    async def generate(
        self, request: inference_pb2.GenerateRequest, context: Context
    ) -> AsyncIterator[inference_pb2.GenerateResponse]:
        """Answers one question through the cloud."""
        del context
        arrived_s = time.monotonic()
        run: RequestRun | None = None
        outcome = ScoutError.reason  # what a caller is told of a crash
        try:
            run = self._begin(validate_generate(request), arrived_s)
            async with aclosing(run.responses()) as responses:
                async for response in responses:
                    yield response
            outcome = OUTCOME_OK
        except ScoutError as error:
            outcome = error.reason
            if run is not None:
                error.details.setdefault("session", run.session_id)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            # A caller that has the whole answer may go without reading the end of the stream.
            outcome = OUTCOME_OK if run is not None and run.answered else OUTCOME_CANCELLED
            raise
        finally:
            self._recent.add(RequestResult(outcome) if run is None else self._end(run, outcome))

    async def get_status(
        self, request: control_pb2.GetStatusRequest, context: Context
    ) -> control_pb2.GetStatusResponse:
        """A snapshot for people."""
        del request, context
        host, attachment, now = self._host, self._attachment, time.monotonic()
        forecast = host.estimator.forecast(now, attachment.round_trip_s)
        known = forecast.known
        return control_pb2.GetStatusResponse(
            edge=control_pb2.EdgeStatus(
                agent_id=host.settings.agent_id,
                version=VERSION,
                models=[model_message(model) for model in attachment.models],
                cloud_address=host.settings.cloud,
                attached=attachment.attached.is_set(),
                link=control_pb2.LinkStatus(
                    goodput_bytes_per_s=forecast.median_bytes_per_s if known else 0.0,
                    goodput_low_bytes_per_s=forecast.low_bytes_per_s if known else 0.0,
                    round_trip_s=attachment.round_trip_s,
                    sample_age_s=host.estimator.sample_age_s(now),
                ),
                last_requests=self._recent.summaries(),
                requests_in_flight=attachment.activity.requests_in_flight,
                profile=host.profile_name,
            )
        )

    def _admit(self) -> None:
        in_flight = self._attachment.activity.requests_in_flight
        if self.draining:
            raise DrainingError(
                "This agent is shutting down; retry in a few seconds.", retry_after_s=RETRY_AFTER_S
            )
        if in_flight >= self._host.settings.max_requests:
            raise OverloadedError(
                f"{in_flight} requests are in flight, the limit; retry soon.",
                retry_after_s=RETRY_AFTER_S,
            )

    def _check_model(self, parameters: GenerateParameters) -> None:
        # Of a cloud that is lost for now its last word counts: the question may wait for it.
        model = (self._attachment.view or self._attachment.require_view()).model
        if parameters.model not in ("", model.name, model.fingerprint):
            raise UnknownModelError(
                f"The cloud hosts {model.name}, not {parameters.model!r}; leave model empty or "
                "use an agent whose cloud hosts it."
            )

    def _resolve(self, reference: ContextReference) -> tuple[ContextHash, StoredEdgeContext]:
        if reference.context_hash is not None:
            now = time.monotonic()
            stored = self._host.contexts.get(self._host.tenant, reference.context_hash, now)
            return reference.context_hash, stored
        return self._host.put_context(reference.text or "")

    def _begin(self, parameters: GenerateParameters, arrived_s: float) -> RequestRun:
        """Admits a request, which is in flight from here on.

        Raises:
            ScoutError: it is refused.
        """
        self._admit()
        self._check_model(parameters)
        key, stored = self._resolve(parameters.context)
        deadline_s = parameters.deadline_s or self._host.settings.default_deadline_s
        question = Question(parameters, key, stored, deadline_s, arrived_s)
        run = RequestRun(self._host, self._attachment, self._channel, question)
        self._attachment.activity.requests_in_flight += 1
        self.idle.clear()
        return run

    def _end(self, run: RequestRun, outcome: str) -> RequestResult:
        activity = self._attachment.activity
        activity.requests_in_flight -= 1
        if activity.requests_in_flight == 0:
            self.idle.set()
        result = run.result(outcome)
        if outcome == OUTCOME_OK and result.mode is not None:
            activity.last_mode = result.mode
            _log_answered(result, result.mode)
        return result


def _log_answered(result: RequestResult, mode: Mode) -> None:
    """The one canonical line of an answered request; a failed one has its call's."""
    log.info(
        "request_finished",
        session=result.session_id,
        mode=mode.value,
        retention=result.retention,
        payload_bytes=result.payload_bytes,
        ttft_s=round(result.ttft_s, 4),
        deadline_s=result.deadline_s,
        deadline_met=result.ttft_s <= result.deadline_s,
    )

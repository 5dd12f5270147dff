"""InferenceService on the cloud: applications that reach the cloud directly.

The context crosses as text, so the only mode is scout at retention 1.0: the cloud computes all.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import grpc
import structlog
from scout.v1 import inference_pb2, types_pb2

from cloud_server.answering import Answering
from cloud_server.host import ModelHost
from cloud_server.settings import CloudSettings
from scout_core.control.cost import Stage
from scout_core.errors import (
    ContextTooLongError,
    ModeUnavailableError,
    SamplingError,
    UnknownModelError,
)
from scout_core.modes import ContextHash, Mode, TenantId
from scout_core.rpc.requests import (
    ContextReference,
    GenerateParameters,
    validate_context_text,
    validate_generate,
)
from scout_core.rpc.session_wire import REASON_TO_WIRE
from scout_core.rpc.tenancy import tenant_of

Context = grpc.aio.ServicerContext[Any, Any]
DEFAULT_DEADLINE_S = 10.0
log = structlog.get_logger("scout.cloud.inference")


class InferenceServicer:
    """Generate and PutContext without an edge agent."""

    def __init__(self, settings: CloudSettings, host: ModelHost) -> None:
        self._settings = settings
        self._host = host

    async def put_context(
        self, request: inference_pb2.PutContextRequest, context: Context
    ) -> inference_pb2.PutContextResponse:
        """Stores the tokens and prefills them ahead of the first question."""
        self._host.admit()
        tenant = tenant_of(context)
        key, tokens = self._store(tenant, validate_context_text(request.context_text))
        await self._host.full_cache(tenant, key, tokens)
        return inference_pb2.PutContextResponse(
            context_hash=key,
            context_tokens=len(tokens),
            time_to_live_s=self._host.contexts.time_to_live_s,
        )

    async def generate(
        self, request: inference_pb2.GenerateRequest, context: Context
    ) -> AsyncIterator[inference_pb2.GenerateResponse]:
        """Answers a question about a context that the caller sends or has put here."""
        arrived_s = time.monotonic()
        parameters = self._check(validate_generate(request))
        tenant = tenant_of(context)
        key, tokens = self._resolve(tenant, parameters.context)
        deadline_s = parameters.deadline_s or DEFAULT_DEADLINE_S
        reservation = self._host.reserve(payload_bytes=0)
        try:
            yield self._started(parameters, tokens, deadline_s)
            cache = await self._host.full_cache(tenant, key, tokens)
            answering = Answering(self._host, cache, parameters.question, parameters.sampling)
            ttft_s = 0.0
            async for token in answering.tokens():
                ttft_s = ttft_s or time.monotonic() - arrived_s
                yield inference_pb2.GenerateResponse(
                    token=inference_pb2.Token(
                        text=token.text,
                        token_id=token.token_id,
                        index=answering.answer_tokens - 1,
                    )
                )
            yield self._finished(answering, ttft_s, time.monotonic() - arrived_s, deadline_s)
        finally:
            reservation.release()

    def _check(self, parameters: GenerateParameters) -> GenerateParameters:
        engine = self._host.engine
        if parameters.model not in ("", engine.name, engine.fingerprint):
            raise UnknownModelError(
                f"This server hosts {engine.name}, not {parameters.model!r}; leave model empty or "
                "ask a server that hosts it."
            )
        if parameters.mode not in (None, Mode.SCOUT) or parameters.retention not in (None, 1.0):
            raise ModeUnavailableError(
                "Without an edge agent the cloud computes from the whole text: use mode auto or "
                "scout at retention 1.0, or call the edge agent."
            )
        if parameters.sampling.max_tokens > self._settings.max_answer_tokens:
            raise SamplingError(
                f"max_tokens is {parameters.sampling.max_tokens}, this server allows "
                f"{self._settings.max_answer_tokens}."
            )
        return parameters

    def _resolve(
        self, tenant: TenantId, reference: ContextReference
    ) -> tuple[ContextHash, tuple[int, ...]]:
        if reference.context_hash is not None:
            stored = self._host.contexts.get(tenant, reference.context_hash, time.monotonic())
            return reference.context_hash, stored.tokens
        return self._store(tenant, reference.text or "")

    def _store(self, tenant: TenantId, text: str) -> tuple[ContextHash, tuple[int, ...]]:
        engine = self._host.engine
        tokens = engine.prompt.context_tokens(text)
        if len(tokens) > engine.context_limit_tokens:
            raise ContextTooLongError(
                f"The context has {len(tokens)} tokens, this server accepts "
                f"{engine.context_limit_tokens}; shorten it or raise context_limit_tokens.",
                context_tokens=len(tokens),
                limit_tokens=engine.context_limit_tokens,
            )
        key = self._host.hash_of(tokens)
        self._host.contexts.put_tokens(tenant, key, tokens, time.monotonic())
        return key, tokens

    def _started(
        self, parameters: GenerateParameters, tokens: tuple[int, ...], deadline_s: float
    ) -> inference_pb2.GenerateResponse:
        predicted_s = (
            self._host.worker.queue_s
            + self._host.cost_model.predict(Stage.CLOUD_PREFILL, len(tokens))
            + self._host.cost_model.predict(Stage.CLOUD_FIRST_TOKEN, 16)
        )
        return inference_pb2.GenerateResponse(
            started=inference_pb2.Started(
                session_id=uuid.uuid4().hex,
                mode=types_pb2.MODE_SCOUT,
                forced=parameters.mode is not None,
                retention=1.0,
                execution=types_pb2.EXECUTION_EVICT,
                selector="none",
                context_tokens=len(tokens),
                predicted_ttft_s=predicted_s,
                predicted_compliance=1.0 if predicted_s <= deadline_s else 0.0,
                expected_quality=1.0,
                reason="asked directly: the cloud computes from the whole context",
                position_unit=types_pb2.POSITION_UNIT_CLOUD_TOKENS,
            )
        )

    def _finished(
        self, answering: Answering, ttft_s: float, total_s: float, deadline_s: float
    ) -> inference_pb2.GenerateResponse:
        context_tokens = answering.cache.length - len(self._host.engine.prompt.head_tokens)
        return inference_pb2.GenerateResponse(
            finished=inference_pb2.Finished(
                finish_reason=REASON_TO_WIRE[answering.finish_reason],
                mode=types_pb2.MODE_SCOUT,
                timing=inference_pb2.Timing(
                    ttft_s=ttft_s,
                    total_s=total_s,
                    cloud_prefill_s=answering.first_step_s,
                    deadline_s=deadline_s,
                ),
                answer_tokens=answering.answer_tokens,
                context_tokens=context_tokens,
                kept_tokens=context_tokens,
                deadline_met=ttft_s <= deadline_s,
            )
        )

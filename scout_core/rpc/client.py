"""A client of InferenceService for commands and tests: validated inputs in, typed events out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import grpc
from google.protobuf.duration_pb2 import Duration
from scout.v1 import control_pb2, inference_pb2, types_pb2

from scout_core.modes import Execution, Mode
from scout_core.rpc.channel import TlsFiles, open_channel
from scout_core.rpc.handlers import CONTROL, INFERENCE
from scout_core.rpc.messages import EXECUTION_TO_WIRE, MODE_TO_WIRE
from scout_core.rpc.options import ChannelRole
from scout_core.rpc.status import error_from_call

CALL_MARGIN_S: Final = 120.0
"""The gRPC deadline of a call: the answer goes on after its first token's deadline."""
STATUS_TIMEOUT_S: Final = 5.0
PUT_TIMEOUT_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Ask:
    """One question; None leaves the choice to the daemon."""

    question: str
    context_text: str | None = None
    context_hash: bytes | None = None
    deadline_s: float | None = None
    mode: Mode | None = None
    retention: float | None = None
    execution: Execution | None = None
    max_tokens: int = 0
    temperature: float = 0.0
    seed: int = 0

    def message(self) -> inference_pb2.GenerateRequest:
        request = inference_pb2.GenerateRequest(
            question=self.question,
            mode=MODE_TO_WIRE[self.mode] if self.mode else types_pb2.MODE_AUTO,
            retention=self.retention or 0.0,
            execution=EXECUTION_TO_WIRE[self.execution],
            sampling=types_pb2.Sampling(
                max_tokens=self.max_tokens, temperature=self.temperature, seed=self.seed
            ),
        )
        if self.context_hash is not None:
            request.context_hash = self.context_hash
        else:
            request.context_text = self.context_text or ""
        if self.deadline_s is not None:
            duration = Duration()
            duration.FromNanoseconds(round(self.deadline_s * 1e9))
            request.deadline.CopyFrom(duration)
        return request


class InferenceClient:
    """Talks to a daemon at ``HOST:PORT``; use as ``async with``.

    Every method raises the ScoutError that the daemon raised, or a TransportError.
    """

    def __init__(self, address: str, tls: TlsFiles | None = None) -> None:
        self._channel = open_channel(address, ChannelRole.APPLICATION, tls)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._channel.close()

    async def put_context(self, text: str) -> inference_pb2.PutContextResponse:
        call = self._unary(
            f"/{INFERENCE.full_name}/PutContext",
            inference_pb2.PutContextRequest,
            inference_pb2.PutContextResponse,
        )
        request = inference_pb2.PutContextRequest(context_text=text)
        try:
            return await call(request, timeout=PUT_TIMEOUT_S)
        except grpc.aio.AioRpcError as failure:
            raise error_from_call(failure) from None

    async def generate(self, ask: Ask) -> AsyncIterator[inference_pb2.GenerateResponse]:
        """Started, tokens, finished."""
        call = self._channel.unary_stream(
            f"/{INFERENCE.full_name}/Generate",
            request_serializer=inference_pb2.GenerateRequest.SerializeToString,
            response_deserializer=inference_pb2.GenerateResponse.FromString,
        )(ask.message(), timeout=(ask.deadline_s or 0.0) + CALL_MARGIN_S)
        try:
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as failure:
            raise error_from_call(failure) from None
        finally:
            call.cancel()

    async def status(self) -> control_pb2.GetStatusResponse:
        call = self._unary(
            f"/{CONTROL.full_name}/GetStatus",
            control_pb2.GetStatusRequest,
            control_pb2.GetStatusResponse,
        )
        try:
            return await call(control_pb2.GetStatusRequest(), timeout=STATUS_TIMEOUT_S)
        except grpc.aio.AioRpcError as failure:
            raise error_from_call(failure) from None

    def _unary(self, method: str, request: Any, response: Any) -> Any:
        return self._channel.unary_unary(
            method,
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )

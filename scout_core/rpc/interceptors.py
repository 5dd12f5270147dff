"""Server interceptor: one deadline rule, one error map, one canonical log line per call.

Without it an exception's text leaks as UNKNOWN, and a CancelledError leaves the client without a
status (STYLE, traps 8 and 17).
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, NoReturn, cast

import grpc
import structlog

from scout_core.errors import DeadlineError, ScoutError
from scout_core.rpc.status import status_code, trailing_metadata

LONG_LIVED_METHODS: Final = frozenset(
    {
        "/scout.v1.ControlService/Attach",
        "/scout.v1.TransportService/Session",
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    }
)
"""Streams with idle timeouts of their own; every other call must carry a deadline."""

Handler = Any
"""``grpc.RpcMethodHandler``: generic in the stubs only."""
Context = grpc.aio.ServicerContext
log = structlog.get_logger("scout.rpc")


class CallGuard(grpc.aio.ServerInterceptor):
    """Wraps every handler with the deadline rule, the error map and the log line."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        # None: the method is unknown, and grpc answers UNIMPLEMENTED by itself.
        if handler is None or method.startswith("/grpc."):
            return handler
        return _guarded(handler, method)


def _guarded(handler: Handler, method: str) -> Handler:
    """The same handler, its behaviour wrapped; grpc tells the four kinds apart by constructor."""
    codecs = {
        "request_deserializer": handler.request_deserializer,
        "response_serializer": handler.response_serializer,
    }
    if handler.request_streaming and handler.response_streaming:
        return grpc.stream_stream_rpc_method_handler(
            _guard(handler.stream_stream, method), **codecs
        )
    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler(_guard(handler.unary_stream, method), **codecs)
    if handler.request_streaming:
        return grpc.stream_unary_rpc_method_handler(_guard(handler.stream_unary, method), **codecs)
    return grpc.unary_unary_rpc_method_handler(_guard(handler.unary_unary, method), **codecs)


def _require_deadline(context: Context, method: str) -> None:
    # The stub leaves the None out that grpc returns for a call without a deadline.
    remaining_s = cast("float | None", context.time_remaining())
    if method not in LONG_LIVED_METHODS and remaining_s is None:
        raise DeadlineError(
            f"{method} needs a gRPC deadline: pass a timeout with the call.", method=method
        )


def _guard(behaviour: Any, method: str) -> Any:
    """Generators stay generators and coroutines coroutines: grpc picks the stream API by that."""

    async def respond(request: Any, context: Context) -> Any:
        started_s = time.monotonic()
        try:
            _require_deadline(context, method)
            response = await behaviour(request, context)
        except BaseException as error:  # noqa: BLE001 - becomes a status or is re-raised
            await _end_with_status(error, context, method, started_s)
        _log_call(method, "OK", started_s)
        return response

    async def generate(request: Any, context: Context) -> AsyncIterator[Any]:
        started_s = time.monotonic()
        try:
            _require_deadline(context, method)
            async for response in behaviour(request, context):
                yield response
        except BaseException as error:  # noqa: BLE001 - becomes a status or is re-raised
            await _end_with_status(error, context, method, started_s)
        _log_call(method, "OK", started_s)

    return generate if inspect.isasyncgenfunction(behaviour) else respond


async def _end_with_status(
    error: BaseException, context: Context, method: str, started_s: float
) -> NoReturn:
    """Ends the call with the status that the error stands for.

    grpc's own AbortError passes through; a cancelled handler is logged and stays cancelled.
    """
    match error:
        case ScoutError():
            _log_call(method, error.reason, started_s, message=error.message)
            await context.abort(status_code(error), error.message, trailing_metadata(error))
        case asyncio.CancelledError() | GeneratorExit():
            _log_call(method, "CANCELLED", started_s)
            raise error
        case grpc.aio.AbortError():
            raise error
        case Exception():
            # A bug of ours: the caller learns that, not the text of the exception.
            log.error("call_crashed", method=method, exc_info=error)
            hidden = ScoutError("Internal error: see the daemon's log.")
            await context.abort(status_code(hidden), hidden.message, trailing_metadata(hidden))
        case _:
            raise error


def _log_call(method: str, outcome: str, started_s: float, **facts: str) -> None:
    elapsed_s = round(time.monotonic() - started_s, 4)
    emit = log.info if outcome == "OK" else log.warning
    emit("call_finished", method=method, outcome=outcome, elapsed_s=elapsed_s, **facts)

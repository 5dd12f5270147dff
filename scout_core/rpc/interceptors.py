"""Server interceptor: one deadline rule, one error map, one canonical log line per call.

Without it an exception's text leaks as UNKNOWN, and a CancelledError leaves the client without a
status (STYLE, traps 8 and 17).
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final, NoReturn, cast

import grpc
import structlog

from scout_core.errors import DeadlineError, ScoutError, SlowConsumerError
from scout_core.rpc.status import status_code, trailing_metadata
from scout_core.rpc.stream import DEFAULT_WRITE_TIMEOUT_S

LONG_LIVED_METHODS: Final = frozenset(
    {
        "/scout.v1.ControlService/Attach",
        "/scout.v1.TransportService/Session",
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    }
)
"""Streams with idle timeouts of their own; every other call must carry a deadline."""

ABORT_GRACE_S: Final = 1.0
"""A status waits behind messages that the caller has not read; the handler waits no longer."""

Handler = Any
"""``grpc.RpcMethodHandler``: generic in the stubs only."""
Context = grpc.aio.ServicerContext[Any, Any]
log = structlog.get_logger("scout.rpc")


class CallGuard(grpc.aio.ServerInterceptor):
    """Wraps every handler with the deadline rule, the error map and the log line.

    Args:
        write_timeout_s: longest wait for a caller that does not read its answer.
    """

    def __init__(self, write_timeout_s: float = DEFAULT_WRITE_TIMEOUT_S) -> None:
        self._write_timeout_s = write_timeout_s

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
        return _guarded(handler, method, self._write_timeout_s)


def _guarded(handler: Handler, method: str, write_timeout_s: float) -> Handler:
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
        streamed = _streamed(handler.unary_stream, write_timeout_s)
        return grpc.unary_stream_rpc_method_handler(_guard(streamed, method), **codecs)
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


def _streamed(behaviour: Any, write_timeout_s: float) -> Any:
    """A generator as a coroutine that writes: a timeout per message, and the generator is closed
    (its reservations given back) before the call ends, whatever ends it."""
    if not inspect.isasyncgenfunction(behaviour):
        return behaviour

    async def respond(request: Any, context: Context) -> None:
        async with aclosing(behaviour(request, context)) as responses:
            async for response in responses:
                try:
                    async with asyncio.timeout(write_timeout_s):
                        await context.write(response)
                except TimeoutError:
                    raise SlowConsumerError(
                        f"The answer was not read for {write_timeout_s:g} s and is given up; read "
                        "it as it comes."
                    ) from None

    return respond


def _guard(behaviour: Any, method: str) -> Any:
    async def respond(request: Any, context: Context) -> Any:
        started_s = time.monotonic()
        try:
            _require_deadline(context, method)
            response = await behaviour(request, context)
        except BaseException as error:  # noqa: BLE001 - becomes a status or is re-raised
            await _end_with_status(error, context, method, started_s)
        _log_call(method, "OK", started_s)
        return response

    return respond


async def _end_with_status(
    error: BaseException, context: Context, method: str, started_s: float
) -> NoReturn:
    """Ends the call with the status that the error stands for.

    grpc's own AbortError passes through; a cancelled handler is logged and stays cancelled.
    """
    match error:
        case ScoutError():
            facts = {"message": error.message, "details": error.details}
            _log_call(method, error.reason, started_s, **facts)
            await _abort(context, error)
        case asyncio.CancelledError():
            _log_call(method, "CANCELLED", started_s)
            raise error
        case grpc.aio.AbortError():
            raise error
        case Exception():
            # A bug of ours: the caller learns that, not the text of the exception.
            log.error("call_crashed", method=method, exc_info=error)
            hidden = ScoutError("Internal error: see the daemon's log.")
            await _abort(context, hidden)
        case _:
            raise error


async def _abort(context: Context, error: ScoutError) -> NoReturn:
    aborting = context.abort(status_code(error), error.message, trailing_metadata(error))
    try:
        async with asyncio.timeout(ABORT_GRACE_S):
            await aborting
    except TimeoutError:
        log.debug("status_unread", reason=error.reason)
    raise error


def _log_call(method: str, outcome: str, started_s: float, **facts: object) -> None:
    elapsed_s = round(time.monotonic() - started_s, 4)
    emit = log.info if outcome == "OK" else log.warning
    emit("call_finished", method=method, outcome=outcome, elapsed_s=elapsed_s, **facts)

"""Whatever a handler does, its caller gets one status and the log one line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
import structlog

from scout_core.errors import OverloadedError
from scout_core.rpc.interceptors import CallGuard

METHOD = "/scout.v1.InferenceService/Generate"


class AbortedError(Exception):
    """What the fake context raises where grpc raises AbortError."""


@dataclass
class FakeContext:
    """A call's context without a call; its peer reads only while ``reading`` is set."""

    remaining_s: float | None = 10.0
    written: list[object] = field(default_factory=list[object])
    status: tuple[grpc.StatusCode, str] | None = None
    reading: asyncio.Event = field(default_factory=asyncio.Event)

    def time_remaining(self) -> float | None:
        return self.remaining_s

    async def write(self, message: object) -> None:
        await self.reading.wait()
        self.written.append(message)

    async def abort(self, code: grpc.StatusCode, details: str, trailers: object) -> None:
        self.status = (code, details)
        raise AbortedError


@dataclass(frozen=True)
class Details:
    method: str
    invocation_metadata: tuple[object, ...] = ()


async def guarded(behaviour: Any, method: str = METHOD, *, streams: bool) -> Any:
    """The behaviour as the guard hands it to grpc."""
    make: Any = (
        grpc.unary_stream_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler
    )
    handler = make(behaviour)

    async def continuation(_: Any) -> Any:
        return handler

    details: Any = Details(method)
    wrapped = await CallGuard(write_timeout_s=0.01).intercept_service(continuation, details)
    assert wrapped is not None
    return wrapped.unary_stream if streams else wrapped.unary_unary


def reading_context() -> FakeContext:
    context = FakeContext()
    context.reading.set()
    return context


async def test_answer_passes_and_is_logged_once() -> None:
    async def behaviour(request: int, context: Any) -> int:
        return request + 1

    with structlog.testing.capture_logs() as logs:
        assert await (await guarded(behaviour, streams=False))(1, FakeContext()) == 2
    assert [(line["event"], line["outcome"]) for line in logs] == [("call_finished", "OK")]


async def test_stream_is_written_message_by_message() -> None:
    async def behaviour(request: int, context: Any) -> AsyncIterator[int]:
        for number in range(request):
            yield number

    context = reading_context()
    await (await guarded(behaviour, streams=True))(3, context)
    assert context.written == [0, 1, 2]
    assert context.status is None


@pytest.mark.parametrize(
    ("error", "code", "says", "outcome"),
    [
        (OverloadedError("Retry."), grpc.StatusCode.RESOURCE_EXHAUSTED, "Retry.", "OVERLOADED"),
        (KeyError("secret"), grpc.StatusCode.INTERNAL, "see the daemon's log", None),
    ],
)
async def test_error_becomes_a_status_and_bugs_keep_their_text_to_the_log(
    error: Exception, code: grpc.StatusCode, says: str, outcome: str | None
) -> None:
    async def behaviour(request: int, context: Any) -> int:
        raise error

    context = FakeContext()
    call = await guarded(behaviour, streams=False)
    with structlog.testing.capture_logs() as logs, pytest.raises(AbortedError):
        await call(1, context)
    assert context.status is not None
    assert context.status[0] is code
    assert says in context.status[1]
    assert "secret" not in context.status[1]
    assert [line.get("outcome") for line in logs] == [outcome]


async def test_generator_is_closed_before_the_status_goes_out() -> None:
    order: list[str] = []

    async def behaviour(request: int, context: Any) -> AsyncIterator[int]:
        try:
            yield 1
            raise OverloadedError("Retry.")
        finally:
            order.append("closed")

    class Recorder(FakeContext):
        async def abort(self, code: grpc.StatusCode, details: str, trailers: object) -> None:
            order.append("status")
            await super().abort(code, details, trailers)

    context = Recorder()
    context.reading.set()
    call = await guarded(behaviour, streams=True)
    with pytest.raises(AbortedError):
        await call(1, context)
    assert order == ["closed", "status"]


async def test_reader_that_stops_is_given_up_and_the_generator_closed() -> None:
    closed = asyncio.Event()

    async def behaviour(request: int, context: Any) -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    context = FakeContext()
    call = await guarded(behaviour, streams=True)
    with pytest.raises(AbortedError):
        await call(1, context)
    assert closed.is_set()
    assert context.status is not None
    assert context.status[0] is grpc.StatusCode.ABORTED


async def test_cancelled_call_stays_cancelled_and_closes_its_generator() -> None:
    started, closed = asyncio.Event(), asyncio.Event()

    async def behaviour(request: int, context: Any) -> AsyncIterator[int]:
        try:
            started.set()
            await asyncio.Event().wait()
            yield 1
        finally:
            closed.set()

    call = await guarded(behaviour, streams=True)
    task = asyncio.create_task(call(1, FakeContext()))
    await started.wait()
    with structlog.testing.capture_logs() as logs:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    assert closed.is_set()
    assert [line["outcome"] for line in logs] == ["CANCELLED"]


async def test_call_without_a_deadline_never_reaches_the_handler() -> None:
    async def behaviour(request: int, context: Any) -> int:
        raise AssertionError("not reached")

    context = FakeContext(remaining_s=None)
    call = await guarded(behaviour, streams=False)
    with pytest.raises(AbortedError):
        await call(1, context)
    assert context.status is not None
    assert context.status[0] is grpc.StatusCode.INVALID_ARGUMENT


async def test_long_lived_streams_need_no_deadline() -> None:
    async def behaviour(request: int, context: Any) -> int:
        return request

    call = await guarded(behaviour, "/scout.v1.ControlService/Attach", streams=False)
    assert await call(7, FakeContext(remaining_s=None)) == 7


async def test_unknown_methods_and_grpcs_own_are_left_alone() -> None:
    async def unknown(_: Any) -> None:
        return None

    guard = CallGuard()
    details: Any = Details(METHOD)
    assert await guard.intercept_service(unknown, details) is None
    handler = object()

    async def health(_: Any) -> Any:
        return handler

    own: Any = Details("/grpc.health.v1.Health/Check")
    assert await guard.intercept_service(health, own) is handler

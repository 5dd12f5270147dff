"""Every error of the tree crosses gRPC as the class it was raised as."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc.aio import AioRpcError, Metadata

from scout_core import errors
from scout_core.errors import PeerTimeoutError, PeerUnavailableError, ScoutError
from scout_core.rpc.status import (
    BY_REASON,
    STATUS_DETAILS_KEY,
    error_from_call,
    rich_status,
    status_code,
    trailing_metadata,
)


def tree(root: type[ScoutError] = ScoutError) -> Iterator[type[ScoutError]]:
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


CLASSES = [each for each in tree() if each.__module__ == errors.__name__]


def failure(error: ScoutError) -> AioRpcError:
    """The failed call that a client gets for the error."""
    trailers = Metadata(*trailing_metadata(error))
    return AioRpcError(status_code(error), Metadata(), trailers, details=error.message)


@pytest.mark.parametrize("error_class", CLASSES, ids=lambda each: each.__name__)
def test_error_comes_back_as_the_class_that_was_raised(error_class: type[ScoutError]) -> None:
    raised = error_class("Do this next.", limit_tokens=3, name="x")
    rebuilt = error_from_call(failure(raised))
    assert type(rebuilt) is error_class
    assert rebuilt.message == "Do this next."
    assert rebuilt.details == {"limit_tokens": "3", "name": "x"}


@pytest.mark.parametrize("error_class", CLASSES, ids=lambda each: each.__name__)
def test_every_error_has_a_status_that_is_not_ok_or_unknown(error_class: type[ScoutError]) -> None:
    code = status_code(error_class("x"))
    assert code not in {grpc.StatusCode.OK, grpc.StatusCode.UNKNOWN, grpc.StatusCode.CANCELLED}
    assert rich_status(error_class("x")).code == code.value[0]


def test_reasons_are_unique() -> None:
    assert len({each.reason for each in CLASSES}) == len(CLASSES)
    assert set(BY_REASON) >= {each.reason for each in CLASSES}


@pytest.mark.parametrize(
    ("error_class", "code"),
    [
        (errors.EmptyInputError, grpc.StatusCode.INVALID_ARGUMENT),
        (errors.UnknownContextError, grpc.StatusCode.NOT_FOUND),
        (errors.UnknownModelError, grpc.StatusCode.NOT_FOUND),
        (errors.FingerprintMismatchError, grpc.StatusCode.FAILED_PRECONDITION),
        (errors.ModeUnavailableError, grpc.StatusCode.FAILED_PRECONDITION),
        (errors.UnauthenticatedError, grpc.StatusCode.UNAUTHENTICATED),
        (errors.PositionsError, grpc.StatusCode.INVALID_ARGUMENT),
        (errors.CreditExceededError, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (errors.DigestMismatchError, grpc.StatusCode.DATA_LOSS),
        (errors.LocalProtocolError, grpc.StatusCode.INTERNAL),
        (errors.DrainingError, grpc.StatusCode.UNAVAILABLE),
        (errors.PeerTimeoutError, grpc.StatusCode.DEADLINE_EXCEEDED),
        (errors.SlowConsumerError, grpc.StatusCode.ABORTED),
        (errors.OverloadedError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
)
def test_status_follows_the_nearest_branch(
    error_class: type[ScoutError], code: grpc.StatusCode
) -> None:
    assert status_code(error_class("x")) is code


def test_retry_advice_travels_as_retry_info() -> None:
    status = rich_status(errors.OverloadedError("Retry.", retry_after_s=1.5))
    retry = RetryInfo()
    assert [detail.Unpack(retry) for detail in status.details] == [False, True]
    assert retry.retry_delay.ToMilliseconds() == 1_500
    assert len(rich_status(errors.OverloadedError("Retry.")).details) == 1


def test_foreign_statuses_become_transport_errors() -> None:
    refused = AioRpcError(grpc.StatusCode.UNAVAILABLE, Metadata(), Metadata(), "refused")
    assert isinstance(error_from_call(refused), PeerUnavailableError)
    assert error_from_call(refused).details["grpc_code"] == "UNAVAILABLE"
    late = AioRpcError(grpc.StatusCode.DEADLINE_EXCEEDED, Metadata(), Metadata(), "late")
    assert isinstance(error_from_call(late), PeerTimeoutError)


@pytest.mark.parametrize("garbage", [b"\xff\xff", b"", Status(code=3).SerializeToString()])
def test_garbage_in_the_trailers_is_not_believed(garbage: bytes) -> None:
    trailers = Metadata((STATUS_DETAILS_KEY, garbage))
    call = AioRpcError(grpc.StatusCode.INTERNAL, Metadata(), trailers, "x")
    assert isinstance(error_from_call(call), PeerUnavailableError)


def test_reason_of_a_newer_version_keeps_its_message() -> None:
    status = Status(code=3, message="Do that.")
    status.details.add().Pack(ErrorInfo(reason="FROM_THE_FUTURE", domain="scout-kv"))
    trailers = Metadata((STATUS_DETAILS_KEY, status.SerializeToString()))
    call = AioRpcError(grpc.StatusCode.INVALID_ARGUMENT, Metadata(), trailers, "x")
    rebuilt = error_from_call(call)
    assert type(rebuilt) is ScoutError
    assert rebuilt.message == "Do that."

"""The two-way map between the error tree and gRPC statuses with google.rpc.ErrorInfo.

One place, so that the same mistake gives the same status from both daemons, and a client raises
the same class that the server raised.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from scout_core import errors
from scout_core.errors import ScoutError

ERROR_DOMAIN: Final = "scout-kv"
STATUS_DETAILS_KEY: Final = "grpc-status-details-bin"
RETRY_AFTER_KEY: Final = "retry_after_s"

UNREACHABLE: Final = "Check that the peer runs and is reachable."
TOO_LARGE: Final = (
    "Send less at once; large contexts go through an edge agent, or to a cloud server's "
    "`applications_listen`."
)

CODES: Final[Mapping[type[ScoutError], grpc.StatusCode]] = {
    errors.ScoutError: grpc.StatusCode.INTERNAL,
    errors.RequestError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ModeUnavailableError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.UnknownContextError: grpc.StatusCode.NOT_FOUND,
    errors.UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    errors.ModelError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.UnknownModelError: grpc.StatusCode.NOT_FOUND,
    errors.PayloadError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ProtocolError: grpc.StatusCode.INTERNAL,
    errors.RemoteProtocolError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.CreditExceededError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DigestMismatchError: grpc.StatusCode.DATA_LOSS,
    errors.TransportError: grpc.StatusCode.UNAVAILABLE,
    errors.PeerTimeoutError: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.SlowConsumerError: grpc.StatusCode.ABORTED,
    errors.OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.SettingsError: grpc.StatusCode.INTERNAL,
}
"""The nearest ancestor in this table decides."""


def status_code(error: ScoutError) -> grpc.StatusCode:
    """The gRPC code of an error: that of its nearest mapped ancestor."""
    for ancestor in type(error).__mro__:
        code = CODES.get(ancestor)
        if code is not None:
            return code
    raise AssertionError("the root of the tree is mapped")


def rich_status(error: ScoutError) -> Status:
    """``google.rpc.Status`` with ErrorInfo and, for errors worth a retry, RetryInfo."""
    code = status_code(error)
    status = Status(code=int(code.value[0]), message=error.message)
    info = ErrorInfo(reason=error.reason, domain=ERROR_DOMAIN, metadata=error.details)
    status.details.add().Pack(info)
    retry_after_s = error.details.get(RETRY_AFTER_KEY)
    if retry_after_s is not None:
        delay = Duration()
        delay.FromMilliseconds(int(float(retry_after_s) * 1_000))
        status.details.add().Pack(RetryInfo(retry_delay=delay))
    return status


def trailing_metadata(error: ScoutError) -> tuple[tuple[str, bytes], ...]:
    """What to send beside the code so that a client can rebuild the error."""
    return ((STATUS_DETAILS_KEY, rich_status(error).SerializeToString()),)


def _subclasses(root: type[ScoutError]) -> Iterator[type[ScoutError]]:
    yield root
    for child in root.__subclasses__():
        yield from _subclasses(child)


BY_REASON: Final[Mapping[str, type[ScoutError]]] = {
    error_class.reason: error_class for error_class in _subclasses(ScoutError)
}


def _error_info(details: tuple[AnyMessage, ...]) -> ErrorInfo | None:
    for packed in details:
        info = ErrorInfo()
        if packed.Unpack(info) and info.domain == ERROR_DOMAIN:
            return info
    return None


def error_from_call(failure: grpc.aio.AioRpcError) -> ScoutError:
    """The error that a failed call stands for.

    A status with our ErrorInfo gives back the class that was raised; anything else (no server,
    connection lost, foreign server) becomes the TransportError that says so.
    """
    code = failure.code()
    text = failure.details() or code.name
    for key, value in failure.trailing_metadata() or ():
        if key != STATUS_DETAILS_KEY or not isinstance(value, bytes):
            continue
        try:
            status = Status.FromString(value)
        except DecodeError:
            break
        info = _error_info(tuple(status.details))
        if info is not None:
            return _rebuild(info, status.message)
    if code in (grpc.StatusCode.DEADLINE_EXCEEDED,):
        return errors.PeerTimeoutError(f"The peer did not answer in time: {text}")
    hint = TOO_LARGE if code is grpc.StatusCode.RESOURCE_EXHAUSTED else UNREACHABLE
    return errors.PeerUnavailableError(
        f"The call failed with {code.name}: {text}. {hint}", grpc_code=code.name
    )


def _rebuild(info: ErrorInfo, message: str) -> ScoutError:
    error_class = BY_REASON.get(info.reason, ScoutError)
    rebuilt = error_class(message)
    rebuilt.details.update(dict(info.metadata))
    return rebuilt

"""The generated client as an application would use it, and what a failed call says."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from scout.v1 import inference_pb2_grpc

STATUS_KEY = "grpc-status-details-bin"


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed call as any gRPC client sees it, read without Scout's own client code."""

    code: grpc.StatusCode
    message: str
    reason: str
    metadata: dict[str, str]
    retry_after_s: float | None


def read_failure(error: grpc.aio.AioRpcError) -> Failure:
    """Reads google.rpc.Status out of the trailing metadata."""
    reason, metadata, retry_after_s = "", {}, None
    for key, value in error.trailing_metadata() or ():
        if key != STATUS_KEY or not isinstance(value, bytes):
            continue
        for detail in Status.FromString(value).details:
            info, retry = ErrorInfo(), RetryInfo()
            if detail.Unpack(info):
                reason, metadata = info.reason, dict(info.metadata)
            elif detail.Unpack(retry):
                retry_after_s = retry.retry_delay.ToMilliseconds() / 1_000
    return Failure(error.code(), error.details() or "", reason, metadata, retry_after_s)


@asynccontextmanager
async def inference_stub(
    address: str, options: list[tuple[str, Any]] | None = None
) -> AsyncGenerator[inference_pb2_grpc.InferenceServiceStub]:
    """The generated stub on a channel of its own."""
    own = ("grpc.use_local_subchannel_pool", 1)
    async with grpc.aio.insecure_channel(address, options=[own, *(options or [])]) as channel:
        yield inference_pb2_grpc.InferenceServiceStub(channel)


async def failure_of(call: Any) -> Failure:
    """Awaits a call that must fail, unary or streaming."""
    try:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return read_failure(error)
    raise AssertionError("the call succeeded")

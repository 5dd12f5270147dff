"""Servicers to gRPC handlers.

Session and Attach exchange serialised messages (identity codecs), because what they count is what
crosses the link; the other methods exchange typed messages. Method names come from the descriptors
of the contract, so a renamed method fails at import.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from typing import Any, Final, Protocol

import grpc
from scout.v1 import control_pb2, inference_pb2, transport_pb2

Context = grpc.aio.ServicerContext[Any, Any]

INFERENCE: Final = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"]
TRANSPORT: Final = transport_pb2.DESCRIPTOR.services_by_name["TransportService"]
CONTROL: Final = control_pb2.DESCRIPTOR.services_by_name["ControlService"]

SESSION_METHOD: Final = f"/{TRANSPORT.full_name}/{TRANSPORT.methods_by_name['Session'].name}"
ATTACH_METHOD: Final = f"/{CONTROL.full_name}/{CONTROL.methods_by_name['Attach'].name}"


class ServesInference(Protocol):
    """Typed methods of InferenceService."""

    def generate(
        self, request: inference_pb2.GenerateRequest, context: Context
    ) -> AsyncIterator[inference_pb2.GenerateResponse]: ...

    def put_context(
        self, request: inference_pb2.PutContextRequest, context: Context
    ) -> Awaitable[inference_pb2.PutContextResponse]: ...


class ServesStatus(Protocol):
    """The typed method of ControlService; both daemons have it."""

    def get_status(
        self, request: control_pb2.GetStatusRequest, context: Context
    ) -> Awaitable[control_pb2.GetStatusResponse]: ...


class ServesControl(ServesStatus, Protocol):
    """ControlService on the cloud; ``attach`` reads and writes serialised messages."""

    def attach(self, _: object, context: Context) -> Awaitable[None]: ...


class ServesTransport(Protocol):
    """TransportService; ``session`` reads and writes serialised messages."""

    def session(self, _: object, context: Context) -> Awaitable[None]: ...


def inference_handler(servicer: ServesInference) -> grpc.GenericRpcHandler:
    return grpc.method_handlers_generic_handler(
        INFERENCE.full_name,
        {
            "Generate": grpc.unary_stream_rpc_method_handler(
                servicer.generate,
                request_deserializer=inference_pb2.GenerateRequest.FromString,
                response_serializer=inference_pb2.GenerateResponse.SerializeToString,
            ),
            "PutContext": grpc.unary_unary_rpc_method_handler(
                servicer.put_context,
                request_deserializer=inference_pb2.PutContextRequest.FromString,
                response_serializer=inference_pb2.PutContextResponse.SerializeToString,
            ),
        },
    )


def control_handler(servicer: ServesControl) -> grpc.GenericRpcHandler:
    return grpc.method_handlers_generic_handler(
        CONTROL.full_name,
        {
            "Attach": _raw_stream(servicer.attach),
            "GetStatus": _status_method(servicer),
        },
    )


def status_handler(servicer: ServesStatus) -> grpc.GenericRpcHandler:
    """ControlService where only status is served; Attach answers UNIMPLEMENTED."""
    return grpc.method_handlers_generic_handler(
        CONTROL.full_name, {"GetStatus": _status_method(servicer)}
    )


def transport_handler(servicer: ServesTransport) -> grpc.GenericRpcHandler:
    return grpc.method_handlers_generic_handler(
        TRANSPORT.full_name, {"Session": _raw_stream(servicer.session)}
    )


def _status_method(servicer: ServesStatus) -> Any:
    return grpc.unary_unary_rpc_method_handler(
        servicer.get_status,
        request_deserializer=control_pb2.GetStatusRequest.FromString,
        response_serializer=control_pb2.GetStatusResponse.SerializeToString,
    )


def _raw_stream(behaviour: Any) -> Any:
    return grpc.stream_stream_rpc_method_handler(
        behaviour, request_deserializer=None, response_serializer=None
    )

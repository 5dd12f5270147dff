"""The images' health check: asks the standard health service at HOST:PORT; exit status 0 is well.

Knows nothing of Scout, so that it answers for a daemon of any version.
"""

from __future__ import annotations

import sys

import grpc
from grpc_health.v1 import health_pb2

TIMEOUT_S = 4.0


def is_serving(address: str) -> bool:
    """Whether the daemon at ``address`` answers SERVING in time; a draining one does not."""
    with grpc.insecure_channel(address) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            response = check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
        except grpc.RpcError:
            return False
    return response.status == health_pb2.HealthCheckResponse.SERVING


if __name__ == "__main__":
    sys.exit(0 if is_serving(sys.argv[1]) else 1)

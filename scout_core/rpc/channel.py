"""Opening channels and servers, in the clear or under mutual TLS."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from scout_core.errors import PeerUnavailableError, SettingsError
from scout_core.rpc.interceptors import CallGuard
from scout_core.rpc.options import (
    MAX_MESSAGE_BYTES,
    ChannelRole,
    channel_options,
    server_options,
)
from scout_core.rpc.stream import DEFAULT_WRITE_TIMEOUT_S

SERVICES = (
    "scout.v1.InferenceService",
    "scout.v1.TransportService",
    "scout.v1.ControlService",
)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of one end; with ``authority`` the peer must present a certificate it signed."""

    certificate: Path | None = None
    key: Path | None = None
    authority: Path | None = None

    @property
    def enabled(self) -> bool:
        return any((self.certificate, self.key, self.authority))


def _pem(path: Path | None, role: str) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"Cannot read the TLS {role} {path}: {error.strerror}.") from error


def open_channel(address: str, role: ChannelRole, tls: TlsFiles | None = None) -> grpc.aio.Channel:
    """A lazy channel to ``HOST:PORT``; connecting happens with the first call.

    Raises:
        SettingsError: a TLS file cannot be read.
    """
    options = channel_options(role)
    if tls is None or not tls.enabled:
        return grpc.aio.insecure_channel(address, options=options)
    credentials = grpc.ssl_channel_credentials(
        root_certificates=_pem(tls.authority, "authority"),
        private_key=_pem(tls.key, "key"),
        certificate_chain=_pem(tls.certificate, "certificate"),
    )
    return grpc.aio.secure_channel(address, credentials, options=options)


class RpcServer:
    """A grpc.aio server with the guard, the health service and reflection.

    Drain order (STYLE, trap 9): health NOT_SERVING, then the owner's drain notices, then ``stop``.

    Args:
        window_bytes, message_bytes: see ``server_options``.
    """

    def __init__(
        self,
        write_timeout_s: float = DEFAULT_WRITE_TIMEOUT_S,
        window_bytes: int | None = None,
        message_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        self.grpc_server = grpc.aio.server(
            interceptors=[CallGuard(write_timeout_s)],
            options=server_options(window_bytes, message_bytes),
        )
        # The package has this module at run time; its stubs leave it out.
        self._health = health.aio.HealthServicer()  # pyright: ignore[reportAttributeAccessIssue]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.grpc_server)
        names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self.grpc_server)

    def listen(self, address: str, tls: TlsFiles | None = None) -> int:
        """Binds ``HOST:PORT`` (port 0 picks one) and returns the port.

        Raises:
            PeerUnavailableError: the address cannot be bound.
            SettingsError: TLS files are incomplete or unreadable.
        """
        try:
            if tls is None or not tls.enabled:
                port = self.grpc_server.add_insecure_port(address)
            else:
                port = self.grpc_server.add_secure_port(address, _server_credentials(tls))
        except RuntimeError as error:
            raise PeerUnavailableError(
                f"Cannot listen on {address}: is the port taken, or the address not of this host?"
            ) from error
        if port == 0:
            raise PeerUnavailableError(f"Cannot listen on {address}: choose another address.")
        return port

    async def start(self) -> None:
        await self.grpc_server.start()
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)

    async def refuse_new_calls(self) -> None:
        """First step of a drain: load balancers and clients see NOT_SERVING."""
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)

    async def stop(self, grace_s: float) -> None:
        await self.grpc_server.stop(grace_s)

    async def _set_health(self, state: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for service in ("", *SERVICES):
            await self._health.set(service, state)


def _server_credentials(tls: TlsFiles) -> grpc.ServerCredentials:
    key, certificate = _pem(tls.key, "key"), _pem(tls.certificate, "certificate")
    if key is None or certificate is None:
        raise SettingsError("TLS on a server needs both a certificate and a key.")
    authority = _pem(tls.authority, "authority")
    return grpc.ssl_server_credentials(
        [(key, certificate)],
        root_certificates=authority,
        require_client_auth=authority is not None,
    )

"""TransportService on the cloud: streams to sessions, new ones and resumed ones."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
import structlog

from cloud_server.admission import check_open, payload_limit_bytes
from cloud_server.host import ModelHost
from cloud_server.session import Arrival, LiveSession, Outlet
from cloud_server.settings import CloudSettings
from scout_core.errors import (
    PeerTimeoutError,
    PeerUnavailableError,
    RemoteProtocolError,
    ScoutError,
)
from scout_core.modes import AgentId, SessionId, TenantId
from scout_core.protocol import events
from scout_core.protocol.cloud_session import CloudSession, CloudTimeouts
from scout_core.protocol.credit import CreditPolicy
from scout_core.protocol.opening import ContextState, OpenParameters
from scout_core.protocol.payload_receiver import ReceivePolicy
from scout_core.rpc.session_wire import decode_edge
from scout_core.rpc.stream import StreamEnded, StreamWriter, read_stream
from scout_core.rpc.tenancy import tenant_of

OPEN_TIMEOUT_S = 10.0
log = structlog.get_logger("scout.cloud.transport")

SessionKey = tuple[TenantId, AgentId, SessionId]


class TransportServicer:
    """Owns the table of live sessions."""

    def __init__(self, settings: CloudSettings, host: ModelHost) -> None:
        self._settings = settings
        self._host = host
        self._sessions: dict[SessionKey, LiveSession] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def session(self, _: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Behaviour of Session on raw messages: one call per stream, not per session."""
        async with StreamWriter(context) as writer:
            outlet = Outlet(writer)
            reader = asyncio.create_task(self._read(context, outlet, tenant_of(context)))
            try:
                await outlet.closed.wait()
                await writer.flush()
            except asyncio.CancelledError:  # the client cancelled, or its connection broke
                if outlet.session is not None:
                    lost = PeerUnavailableError("The edge's stream was cancelled.")
                    outlet.session.post(events.ConnectionLost(lost), outlet)
                raise
            finally:
                reader.cancel()
                await asyncio.gather(reader, return_exceptions=True)
        if outlet.error is not None:
            raise outlet.error

    async def close(self) -> None:
        """Ends every session."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _read(
        self, context: grpc.aio.ServicerContext[Any, Any], outlet: Outlet, tenant: TenantId
    ) -> None:
        """Feeds one stream's messages to its session, until the stream ends."""
        timer = asyncio.get_running_loop().call_later(
            OPEN_TIMEOUT_S, outlet.close, PeerTimeoutError("No `open` arrived; send it first.")
        )
        session: LiveSession | None = None
        try:
            data = await read_stream(context)
            timer.cancel()
            event = decode_edge(data)
            if not isinstance(event, events.OpenReceived):
                raise RemoteProtocolError("The first session message must be `open`.")
            session = self._open(event, outlet, tenant)
            session.uplink_bytes += len(data)
            while True:
                data = await read_stream(context)
                session.uplink_bytes += len(data)
                await session.inbox.put(Arrival(decode_edge(data), outlet), len(data))
        except StreamEnded:
            if session is not None:
                session.post(events.StreamEnded(), outlet)
            else:
                outlet.close(PeerUnavailableError("The stream ended before `open`."))
        except ScoutError as error:
            if session is not None:
                session.post(events.Abort(error), outlet)
            else:
                outlet.close(error)
        finally:
            timer.cancel()

    def _open(self, event: events.OpenReceived, outlet: Outlet, tenant: TenantId) -> LiveSession:
        """The session that ``open`` names: a live one to resume, or a new one.

        Raises:
            RequestError, ModelError, OverloadedError, DrainingError: it cannot be served.
        """
        parameters = event.parameters
        key = (tenant, parameters.agent_id, parameters.session_id)
        live = self._sessions.get(key)
        if live is not None:
            live.attach(outlet, events.Resumed(parameters))
            return live
        check_open(parameters, self._host, self._settings)
        session = self._create(key, parameters)
        session.attach(outlet, event)
        session.post(
            events.AcceptDecided(
                self._context_state(tenant, parameters),
                self._host.worker.queue_s,
                self._settings.uplink_bytes_per_s or None,
            )
        )
        return session

    def _create(self, key: SessionKey, parameters: OpenParameters) -> LiveSession:
        limit_bytes = payload_limit_bytes(parameters, self._host)
        reservation = self._host.reserve(limit_bytes)
        credit = CreditPolicy(
            initial_bytes=min(self._settings.initial_credit_bytes, limit_bytes),
            payload_limit_bytes=limit_bytes,
        )
        machine = CloudSession(
            ReceivePolicy(credit),
            CloudTimeouts(resume_window_s=self._settings.session_resume_s),
        )
        session = LiveSession(self._host, machine, parameters, key[0], reservation)
        self._sessions[key] = session
        task = asyncio.create_task(self._live(key, session))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return session

    async def _live(self, key: SessionKey, session: LiveSession) -> None:
        try:
            await session.run()
        finally:
            del self._sessions[key]

    def _context_state(self, tenant: TenantId, parameters: OpenParameters) -> ContextState:
        stored = self._host.contexts.find(tenant, parameters.context_hash, time.monotonic())
        if stored is None:
            return ContextState.ABSENT
        return ContextState.TOKENS if stored.cache is None else ContextState.KV

"""TransportService on the cloud: streams to sessions, new ones and resumed ones."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any, Final

import grpc

from cloud_server.admission import check_open, payload_limit_bytes
from cloud_server.host import ModelHost
from cloud_server.metrics import CloudMetrics
from cloud_server.offers import alternatives_of, column_of, most_payload_bytes
from cloud_server.scheduled_session import Opening
from cloud_server.session import LiveSession
from cloud_server.settings import CloudSettings
from cloud_server.tracking import SessionTracking
from cloud_server.uplink import Uplink
from scout_core.modes import AgentId, SessionId, TenantId
from scout_core.protocol import events
from scout_core.protocol.cloud_session import CloudSession, CloudTimeouts
from scout_core.protocol.credit import CreditPolicy
from scout_core.protocol.opening import ContextState, OpenParameters
from scout_core.protocol.payload_receiver import ReceivePolicy
from scout_core.rpc.session_server import Outlet, serve_session_stream
from scout_core.rpc.tenancy import tenant_of

KEPT_PER_REQUEST: Final = 4
"""Sessions in the table, per request allowed at once: the surplus are complete ones, kept for an
edge that lost the end of its answer."""

SessionKey = tuple[TenantId, AgentId, SessionId]


class TransportServicer:
    """Owns the table of live sessions."""

    def __init__(
        self, settings: CloudSettings, host: ModelHost, uplink: Uplink, metrics: CloudMetrics
    ) -> None:
        self._settings = settings
        self._host = host
        self._uplink = uplink
        self._metrics = metrics
        self._sessions: dict[SessionKey, LiveSession] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def session(self, _: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Behaviour of Session on raw messages: one call per stream, not per session."""
        tenant = tenant_of(context)
        await serve_session_stream(
            context,
            lambda event, outlet: self._open(event, outlet, tenant).served,
            self._settings.write_timeout_s,
        )

    @property
    def live_sessions(self) -> int:
        """Sessions in the table: in progress, waiting for a resume, or kept after their end."""
        return len(self._sessions)

    async def close(self) -> None:
        """Ends every session."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _open(self, event: events.OpenReceived, outlet: Outlet, tenant: TenantId) -> LiveSession:
        """The session that ``open`` names: a live one to resume, or a new one.

        Raises:
            RequestError, ModelError, OverloadedError, DrainingError: it cannot be served.
            PeerUnavailableError: its uplink may be scheduled, but its agent is not attached.
        """
        parameters = event.parameters
        key = (tenant, parameters.agent_id, parameters.session_id)
        live = self._sessions.get(key)
        if live is not None:
            live.served.attach(outlet, events.Resumed(parameters))
            return live
        check_open(parameters, self._host, self._settings)
        tracking = self._tracking(parameters, tenant)
        session = self._create(key, parameters, tracking)
        session.served.attach(outlet, event)
        if tracking.opening is not None and tracking.seat is not None:
            self._uplink.open(tracking.opening, tracking.seat, session)
        else:
            accept = self._acceptance(parameters, tenant)
            rate_bytes_per_s = self._settings.uplink_bytes_per_s or None
            session.served.post(replace(accept, rate_bytes_per_s=rate_bytes_per_s))
        return session

    def _tracking(self, parameters: OpenParameters, tenant: TenantId) -> SessionTracking:
        """What follows the session, and what its uplink's scheduler needs to know, if it has one.

        The deadline counts from when the edge sent the open, and the first token has to get there:
        a round trip less is left here.
        """
        seat = self._uplink.seat_for(parameters.agent_id, tenant)
        due_s = time.monotonic() + parameters.deadline_s - parameters.round_trip_s
        tracking = SessionTracking(
            self._metrics, self._uplink, tenant, parameters.mode, due_s, seat
        )
        if seat is not None:
            reserve_s = self._settings.uplink_deadline_reserve * max(parameters.deadline_s, 0.0)
            delivery_s = self._uplink.delivery_s(seat, parameters.round_trip_s)
            alternatives = alternatives_of(parameters, self._host, tenant, delivery_s)
            opened = column_of(alternatives, parameters.mode, parameters.retention)
            tracking.opening = Opening(
                tenant,
                parameters.agent_id,
                parameters.session_id,
                due_s - reserve_s,
                alternatives,
                opened or 0,
                most_payload_bytes(alternatives, parameters.context_tokens),
                self._acceptance(parameters, tenant),
                parameters.round_trip_s,
            )
        return tracking

    def _acceptance(self, parameters: OpenParameters, tenant: TenantId) -> events.AcceptDecided:
        return events.AcceptDecided(
            self._context_state(tenant, parameters), self._host.worker.queue_s
        )

    def _create(
        self, key: SessionKey, parameters: OpenParameters, tracking: SessionTracking
    ) -> LiveSession:
        scheduled = tracking.opening is not None
        limit_bytes = payload_limit_bytes(parameters, self._host, any_offer=scheduled)
        if tracking.opening is not None:
            limit_bytes = min(limit_bytes, tracking.opening.most_bytes)
        reservation = self._host.reserve(limit_bytes)
        self._make_room()
        credit = CreditPolicy(
            initial_bytes=0 if scheduled else min(self._settings.initial_credit_bytes, limit_bytes),
            payload_limit_bytes=limit_bytes,
        )
        machine = CloudSession(
            ReceivePolicy(credit),
            CloudTimeouts(
                resume_window_s=self._settings.session_resume_s,
                linger_s=self._settings.session_resume_s,
            ),
        )
        session = LiveSession(self._host, machine, parameters, reservation, tracking)
        self._sessions[key] = session
        task = asyncio.create_task(self._live(key, session))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return session

    def _make_room(self) -> None:
        """The oldest complete sessions give way to a new one."""
        surplus = len(self._sessions) + 1 - KEPT_PER_REQUEST * self._settings.max_requests
        complete = [live for live in self._sessions.values() if live.served.is_complete]
        for live in complete[: max(0, surplus)]:
            live.served.post(events.CancelReceived())

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

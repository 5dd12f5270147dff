"""ControlService on the cloud: registration, heartbeats, probes, drain notices, status."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

import grpc
import structlog
from google.protobuf.duration_pb2 import Duration
from scout.v1 import control_pb2, types_pb2

from cloud_server.agents import AgentRegistry, AttachedAgent
from cloud_server.host import ModelHost
from cloud_server.message_limit import largest_message_bytes
from cloud_server.seats import Advice, UplinkSeat
from cloud_server.settings import CloudSettings
from cloud_server.uplink import Uplink
from scout_core.allocation.offer import GroupId
from scout_core.errors import PeerTimeoutError, RemoteProtocolError, RequestError
from scout_core.modes import AgentId
from scout_core.rpc.bounded_queue import StreamEnded
from scout_core.rpc.messages import MODE_FROM_WIRE, MODE_TO_WIRE, decode, mode_from_wire
from scout_core.rpc.registration import cost_messages, model_message
from scout_core.rpc.stream import StreamPump
from scout_core.rpc.tenancy import tenant_of
from scout_core.version import VERSION

MISSED_HEARTBEATS: Final = 5
"""An agent silent for this many intervals is gone (a dead path is noticed within 5 s)."""
MAX_PROBE_BYTES: Final = 64 * 1024
MAX_AGENT_ID: Final = 64
CONTROL_BUFFER_BYTES: Final = 256 * 1024
COSTS_AGE_S: Final = 0.1
"""Stage costs are told as they were so long ago at most."""
MICROSECONDS: Final = 1_000_000

log = structlog.get_logger("scout.cloud.control")


class ControlServicer:
    """One Attach stream per agent; GetStatus for people."""

    def __init__(
        self, settings: CloudSettings, host: ModelHost, agents: AgentRegistry, uplink: Uplink
    ) -> None:
        self._settings = settings
        self._host = host
        self._agents = agents
        self._uplink = uplink
        self._pumps: set[StreamPump] = set()
        self._costs: list[types_pb2.StageCost] = []
        self._costs_due_s = 0.0

    async def attach(self, _: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Behaviour of Attach on raw messages."""
        async with StreamPump(
            context, inbox_bytes=CONTROL_BUFFER_BYTES, outbox_bytes=CONTROL_BUFFER_BYTES
        ) as pump:
            agent = await self._register(pump)
            seat = UplinkSeat(
                agent.agent_id,
                tenant_of(context),
                GroupId(agent.uplink_group),
                lambda advice: _advise(pump, advice),
            )
            self._agents.attach(agent)
            self._uplink.attach(seat)
            self._pumps.add(pump)
            log.info("agent_attached", agent=agent.agent_id, modes=[m.value for m in agent.modes])
            try:
                await self._serve(agent, seat, pump)
            except StreamEnded:
                log.info("agent_detached", agent=agent.agent_id)
            finally:
                self._pumps.discard(pump)
                self._agents.detach(agent)
                self._uplink.detach(seat)

    async def announce_drain(self, reason: str, retry_after_s: float) -> None:
        """Tells every attached agent to finish and start nothing new."""
        notice = control_pb2.AttachResponse(
            drain=control_pb2.DrainNotice(reason=reason, retry_after=_duration(retry_after_s))
        )
        data = notice.SerializeToString()
        await asyncio.gather(
            *(pump.send(data) for pump in tuple(self._pumps)), return_exceptions=True
        )

    async def get_status(
        self, request: control_pb2.GetStatusRequest, context: object
    ) -> control_pb2.GetStatusResponse:
        del request, context
        host, now = self._host, time.monotonic()
        return control_pb2.GetStatusResponse(
            cloud=control_pb2.CloudStatus(
                server_id=self._settings.server_id,
                version=VERSION,
                model=model_message(host.description),
                agents=self._agent_statuses(now),
                contexts=len(host.contexts),
                context_bytes=host.contexts.held_bytes,
                context_budget_bytes=host.contexts.budget_bytes,
                sessions=host.sessions_in_progress,
                queue_s=host.worker.queue_s,
                draining=host.draining,
                uplinks=[
                    control_pb2.UplinkStatus(
                        group=status.group,
                        capacity_bytes_per_s=status.capacity_bytes_per_s,
                        granted_bytes_per_s=status.granted_bytes_per_s,
                        requests=status.requests,
                        late=status.late,
                    )
                    for status in self._uplink.status()
                ],
            )
        )

    def _agent_statuses(self, now: float) -> list[control_pb2.AgentStatus]:
        statuses = {agent.agent_id: _agent_status(agent, now) for agent in self._agents.all()}
        for session in self._uplink.sessions():
            status = statuses.get(session.opening.agent)
            if status is not None and session.accepted:
                share = session.share()
                status.granted_bytes_per_s += share.rate_bytes_per_s
                status.granted_mode = MODE_TO_WIRE[share.mode]
        return list(statuses.values())

    async def _register(self, pump: StreamPump) -> AttachedAgent:
        data = await pump.receive(timeout_s=self._silence_limit_s)
        message = decode(control_pb2.AttachRequest, data)
        if message.WhichOneof("event") != "register":
            raise RemoteProtocolError("The first Attach message must be `register`.")
        register = message.register
        if not 1 <= len(register.agent_id) <= MAX_AGENT_ID:
            raise RequestError(f"agent_id must have 1 to {MAX_AGENT_ID} characters.")
        now = time.monotonic()
        agent = AttachedAgent(
            agent_id=AgentId(register.agent_id),
            modes=tuple(mode_from_wire(mode) for mode in register.modes),
            uplink_group=register.uplink_group or "default",
            version=register.version,
            attached_at_s=now,
            heartbeat_at_s=now,
        )
        scheduled = self._uplink.schedules(agent.uplink_group)
        registered = control_pb2.Registered(
            server_id=self._settings.server_id,
            version=VERSION,
            model=model_message(self._host.description),
            heartbeat_interval=_duration(self._settings.heartbeat_interval_s),
            # On a scheduled uplink nothing is sent on credit that nobody has allocated.
            initial_credit_bytes=0 if scheduled else self._settings.initial_credit_bytes,
            uplink_scheduled=scheduled,
            costs=self._cost_messages(now),
            largest_message_bytes=largest_message_bytes(self._settings),
        )
        await pump.send(control_pb2.AttachResponse(registered=registered).SerializeToString())
        return agent

    def _cost_messages(self, now: float) -> list[types_pb2.StageCost]:
        """Stage costs for a registration or a heartbeat; they change slowly, and a thousand agents
        ask a thousand times a second."""
        if now >= self._costs_due_s:
            self._costs = list(cost_messages(self._host.costs()))
            self._costs_due_s = now + COSTS_AGE_S
        return self._costs

    @property
    def _silence_limit_s(self) -> float:
        return MISSED_HEARTBEATS * self._settings.heartbeat_interval_s

    async def _serve(self, agent: AttachedAgent, seat: UplinkSeat, pump: StreamPump) -> None:
        while True:
            try:
                data = await pump.receive(timeout_s=self._silence_limit_s)
            except PeerTimeoutError:
                log.warning("agent_silent", agent=agent.agent_id, after_s=self._silence_limit_s)
                raise
            if not self._agents.is_current(agent):
                raise RequestError(
                    f"Another agent attached as {agent.agent_id!r}; give each agent its own id."
                )
            self._uplink.heard(seat)
            reply = self._answer(agent, decode(control_pb2.AttachRequest, data))
            await pump.send(reply.SerializeToString())

    def _answer(
        self, agent: AttachedAgent, message: control_pb2.AttachRequest
    ) -> control_pb2.AttachResponse:
        now = time.monotonic()
        match message.WhichOneof("event"):
            case "heartbeat":
                heartbeat = message.heartbeat
                agent.heartbeat_at_s = now
                agent.goodput_bytes_per_s = heartbeat.goodput_bytes_per_s
                agent.round_trip_s = heartbeat.round_trip_us / MICROSECONDS
                agent.requests_in_flight = heartbeat.requests_in_flight
                agent.last_mode = MODE_FROM_WIRE.get(heartbeat.last_mode)
                acknowledgement = control_pb2.HeartbeatAck(
                    sequence=heartbeat.sequence,
                    queue_s=self._host.worker.queue_s,
                    costs=self._cost_messages(now),
                )
                return control_pb2.AttachResponse(heartbeat_ack=acknowledgement)
            case "probe":
                if len(message.probe.padding) > MAX_PROBE_BYTES:
                    raise RemoteProtocolError(f"A probe may have {MAX_PROBE_BYTES} bytes at most.")
                arrival = control_pb2.ProbeAck(
                    sequence=message.probe.sequence, arrival_us=round(now * MICROSECONDS)
                )
                return control_pb2.AttachResponse(probe_ack=arrival)
            case _:
                raise RemoteProtocolError("Only heartbeats and probes may follow `register`.")


def _agent_status(agent: AttachedAgent, now: float) -> control_pb2.AgentStatus:
    last_mode = MODE_TO_WIRE[agent.last_mode] if agent.last_mode else types_pb2.MODE_UNSPECIFIED
    return control_pb2.AgentStatus(
        agent_id=agent.agent_id,
        heartbeat_age_s=now - agent.heartbeat_at_s,
        goodput_bytes_per_s=agent.goodput_bytes_per_s,
        last_mode=last_mode,
        requests_in_flight=agent.requests_in_flight,
        modes=[MODE_TO_WIRE[mode] for mode in agent.modes],
        uplink_group=agent.uplink_group,
    )


def _advise(pump: StreamPump, advice: Advice) -> None:
    """Tells the agent; an agent that does not read misses it and goes on as it is."""
    share = advice.share
    grant = control_pb2.Grant(
        rate_bytes_per_s=share.rate_bytes_per_s,
        lease=_duration(advice.lease_s),
        mode=MODE_TO_WIRE[share.mode],
        session_id=advice.session_id,
        retention=share.retention,
    )
    try:
        told = pump.offer(control_pb2.AttachResponse(grant=grant).SerializeToString())
    except StreamEnded:
        told = False
    if not told:
        log.warning("advice_not_sent", session=advice.session_id)


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromMilliseconds(round(seconds * 1_000))
    return duration

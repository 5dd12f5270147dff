"""The control channel to the cloud: registration, heartbeats, probes, drain notices.

Keeps one Attach stream open for as long as the agent lives, and re-opens it after a drop. What it
learns (the cloud's model, costs, queue, round trip) is read from ``view``. It never carries
payload, so a dead path shows here within seconds even when nothing is being sent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

import grpc
import structlog
from scout.v1 import control_pb2, types_pb2

from edge_agent.cloud_view import CloudView, stage_costs, view_of
from edge_agent.settings import EdgeSettings
from scout_core.control.estimator import GoodputEstimator
from scout_core.control.probe import ProbeBudget
from scout_core.control.samples import TransferSample
from scout_core.errors import PeerTimeoutError, PeerUnavailableError, ScoutError
from scout_core.modes import Mode, SessionId, TenantId
from scout_core.rpc.bounded_queue import StreamEnded
from scout_core.rpc.handlers import ATTACH_METHOD
from scout_core.rpc.messages import MODE_FROM_WIRE, MODE_TO_WIRE, decode
from scout_core.rpc.registration import ModelDescription, model_message
from scout_core.rpc.status import error_from_call
from scout_core.rpc.stream import StreamPump
from scout_core.rpc.tenancy import tenant_metadata
from scout_core.version import VERSION

REATTACH_PAUSE_S: Final = 1.0
SILENCE_LIMIT_S: Final = 4.0
"""Without any message for this long the path is dead (noticed within 5 s)."""
SILENT_BEATS: Final = 2
"""…or for so many heartbeats, where the cloud asks for rarer ones."""
REGISTER_TIMEOUT_S: Final = 5.0
CONTROL_BUFFER_BYTES: Final = 1024 * 1024
PROBE_CHUNK_BYTES: Final = 16 * 1024
ROUND_TRIP_MEMORY: Final = 64
"""The smallest of this many recent heartbeats is the round trip; routes change."""
MICROSECONDS: Final = 1_000_000

log = structlog.get_logger("scout.edge.attachment")


@dataclass(slots=True)
class AgentActivity:
    """What the agent reports in its heartbeats."""

    requests_in_flight: int = 0
    last_mode: Mode | None = None


@dataclass(slots=True)
class TimedProbe:
    """A probe under way: several messages, timed by their arrivals at the cloud."""

    messages: int
    message_bytes: int
    first_arrival_us: int | None = None

    @property
    def measured_bytes(self) -> int:
        """What crosses between the first and the last arrival."""
        return (self.messages - 1) * self.message_bytes


def probe_of(size_bytes: int, chunk_bytes: int) -> TimedProbe:
    """A probe of about so many bytes; no message is larger than the payload's chunks may be, as the
    cloud may take no larger ones."""
    message_bytes = min(PROBE_CHUNK_BYTES, chunk_bytes)
    return TimedProbe(max(2, size_bytes // message_bytes), message_bytes)


@dataclass(slots=True)
class Attachment:
    """Owns the control stream.

    Args:
        settings: the agent's.
        channel: the control channel.
        models: what the agent holds.
        estimator: fed with probe observations.
        activity: reported in heartbeats.
        probe_budget: when an idle link may be probed.
    """

    settings: EdgeSettings
    channel: grpc.aio.Channel
    models: tuple[ModelDescription, ...]
    estimator: GoodputEstimator
    activity: AgentActivity
    view: CloudView | None = None
    attached: asyncio.Event = field(default_factory=asyncio.Event)
    probe_budget: ProbeBudget = field(default_factory=ProbeBudget)
    advised: dict[SessionId, Callable[[Mode], None]] = field(
        default_factory=dict[SessionId, "Callable[[Mode], None]"]
    )
    """Who hears that a session's share is now made for another mode."""
    _round_trips_s: list[float] = field(default_factory=list)
    _probe: TimedProbe | None = None
    _last_failure: ScoutError | None = None
    _chunk_bytes: int = 0
    """The largest sent to the cloud as last known; 0: not attached yet."""

    @property
    def round_trip_s(self) -> float:
        """Smallest recent round trip on the control channel; 0: unknown."""
        return min(self._round_trips_s, default=0.0)

    def require_view(self) -> CloudView:
        """The cloud as known now.

        Raises:
            PeerUnavailableError: not attached.
        """
        if self.view is None or not self.attached.is_set():
            cause = f" ({self._last_failure.message})" if self._last_failure else ""
            raise PeerUnavailableError(
                f"The cloud server at {self.settings.cloud} is not reachable now{cause}; check "
                "the address and the link, and retry.",
                retry_after_s=REATTACH_PAUSE_S,
            )
        return self.view

    async def view_by(self, end_s: float) -> CloudView:
        """The cloud as known now; where it was lost, once it is back, if that is by ``end_s``.

        Args:
            end_s: ``time.monotonic`` seconds. A cloud that was never there is not waited for.

        Raises:
            PeerUnavailableError: not attached.
        """
        if self.view is not None and not self.attached.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(end_s - time.monotonic()):
                    await self.attached.wait()
        return self.require_view()

    async def run(self) -> None:
        """Attaches again and again until cancelled."""
        while True:
            try:
                await self._attach()
            except StreamEnded as end:
                self._lost(error_from_call(end.failure) if end.failure else None)
            except ScoutError as error:
                self._lost(error)
            await asyncio.sleep(REATTACH_PAUSE_S)

    def _lost(self, error: ScoutError | None) -> None:
        was_attached = self.attached.is_set()
        self.attached.clear()
        self._last_failure = error
        if was_attached or error is not None:
            log.warning("cloud_detached", reason=error.reason if error else "ENDED")

    async def _attach(self) -> None:
        call = self.channel.stream_stream(
            ATTACH_METHOD, request_serializer=None, response_deserializer=None
        )(metadata=tenant_metadata(TenantId(self.settings.tenant)))
        try:
            async with StreamPump(
                call, inbox_bytes=CONTROL_BUFFER_BYTES, outbox_bytes=CONTROL_BUFFER_BYTES
            ) as pump:
                view = await self._register(pump)
                await self._converse(pump, view.heartbeat_interval_s)
        finally:
            call.cancel()

    async def _register(self, pump: StreamPump) -> CloudView:
        register = control_pb2.Register(
            agent_id=self.settings.agent_id,
            version=VERSION,
            models=[model_message(model) for model in self.models],
            modes=[MODE_TO_WIRE[mode] for mode in Mode if self.offers_any(mode)],
            uplink_group=self.settings.uplink_group,
        )
        await pump.send(control_pb2.AttachRequest(register=register).SerializeToString())
        data = await pump.receive(timeout_s=REGISTER_TIMEOUT_S)
        view = view_of(decode(control_pb2.AttachResponse, data).registered)
        self._note_chunks(view)
        self.view = view
        self._round_trips_s.clear()
        self._probe = None
        self.attached.set()
        log.info("cloud_attached", server=view.server_id, model=view.model.name)
        return view

    def _note_chunks(self, view: CloudView) -> None:
        """Says once that the cloud takes no messages as large as is configured here."""
        configured, chunk_bytes = self.settings.chunk_bytes, self._chunk_bytes
        self._chunk_bytes = view.chunk_bytes(configured)
        if self._chunk_bytes not in (chunk_bytes, configured):
            log.info("chunks_follow_the_cloud", bytes=self._chunk_bytes, configured=configured)

    def offers_any(self, mode: Mode) -> bool:
        """Whether this agent could offer a mode to some cloud: KV modes need a replica."""
        return not mode.carries_kv or bool(self.settings.cloud_model)

    async def _converse(self, pump: StreamPump, interval_s: float) -> None:
        """One task: a heartbeat when it is due, otherwise whatever arrives.

        Raises:
            PeerTimeoutError: the cloud has been silent for too long.
        """
        sequence, sent_s = 0, 0.0
        silence_limit_s = max(SILENCE_LIMIT_S, SILENT_BEATS * interval_s)
        heard_s = next_beat_s = time.monotonic()
        while True:
            data = await pump.receive_until(min(next_beat_s, heard_s + silence_limit_s))
            now = time.monotonic()
            if data is not None:
                heard_s = now
                response = decode(control_pb2.AttachResponse, data)
                if response.heartbeat_ack.sequence == sequence:
                    self._note_round_trip(now - sent_s)
                self._take(response)
                continue
            if now - heard_s >= silence_limit_s:
                raise PeerTimeoutError(
                    f"The cloud sent nothing for {silence_limit_s:g} s; attaching again."
                )
            await self._probe_if_idle(pump, now)
            sequence, sent_s, next_beat_s = sequence + 1, now, now + interval_s
            await pump.send(self._heartbeat(sequence))

    def _heartbeat(self, sequence: int) -> bytes:
        forecast = self.estimator.forecast(time.monotonic())
        last_mode = self.activity.last_mode
        heartbeat = control_pb2.Heartbeat(
            sequence=sequence,
            requests_in_flight=self.activity.requests_in_flight,
            goodput_bytes_per_s=forecast.median_bytes_per_s if forecast.known else 0.0,
            round_trip_us=round(self.round_trip_s * MICROSECONDS),
            last_mode=MODE_TO_WIRE[last_mode] if last_mode else types_pb2.MODE_UNSPECIFIED,
        )
        return control_pb2.AttachRequest(heartbeat=heartbeat).SerializeToString()

    def _take(self, response: control_pb2.AttachResponse) -> None:
        view = self.require_view()
        match response.WhichOneof("event"):
            case "heartbeat_ack":
                acknowledgement = response.heartbeat_ack
                view.costs.load(stage_costs(acknowledgement.costs))
                self.view = replace(view, queue_s=acknowledgement.queue_s)
            case "probe_ack":
                self._take_probe(response.probe_ack)
            case "drain":
                log.warning("cloud_draining", cause=response.drain.reason)
                self.view = replace(view, draining=True)
            case "grant":
                advise = self.advised.get(SessionId(response.grant.session_id))
                mode = MODE_FROM_WIRE.get(response.grant.mode)
                if advise is not None and mode is not None:
                    advise(mode)
            case "registered" | None:
                log.debug("control_message_ignored", kind=response.WhichOneof("event"))
            case _:
                log.debug("control_message_unknown")

    def _note_round_trip(self, round_trip_s: float) -> None:
        self._round_trips_s.append(round_trip_s)
        del self._round_trips_s[:-ROUND_TRIP_MEMORY]

    async def _probe_if_idle(self, pump: StreamPump, now: float) -> None:
        if self.activity.requests_in_flight:
            self.probe_budget.on_activity(now)
            return
        expected = self.estimator.forecast(now).median_bytes_per_s
        size_bytes = self.probe_budget.due(now, expected)
        if size_bytes == 0:
            return
        self._probe = probe_of(size_bytes, self._chunk_bytes)
        padding = bytes(self._probe.message_bytes)
        for sequence in range(1, self._probe.messages + 1):
            probe = control_pb2.Probe(sequence=sequence, padding=padding)
            await pump.send(control_pb2.AttachRequest(probe=probe).SerializeToString())

    def _take_probe(self, acknowledgement: control_pb2.ProbeAck) -> None:
        """The rate between the first and the last message's arrival, on the cloud's clock."""
        probe = self._probe
        if probe is None:
            return
        if acknowledgement.sequence == 1:
            probe.first_arrival_us = acknowledgement.arrival_us
        if acknowledgement.sequence < probe.messages or probe.first_arrival_us is None:
            return
        self._probe = None
        elapsed_s = (acknowledgement.arrival_us - probe.first_arrival_us) / MICROSECONDS
        if elapsed_s > 0:
            now = time.monotonic()
            self.estimator.observe(TransferSample(probe.measured_bytes, elapsed_s, False, now))

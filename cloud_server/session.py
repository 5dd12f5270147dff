"""One session as it lives in the server: machine, inbox, pipeline and the stream it has just now.

A session outlives its stream: after a drop the machine waits for the edge to come back with the
same id. The loop here does what the machine says; it decides nothing about the protocol.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

import structlog

from cloud_server.answering import Answering
from cloud_server.assembly import PayloadAssembler
from cloud_server.host import ModelHost, Reservation
from scout_core.errors import (
    PayloadError,
    PeerUnavailableError,
    RemoteProtocolError,
    ScoutError,
    TransportError,
)
from scout_core.modes import TenantId
from scout_core.protocol import actions, events
from scout_core.protocol.answer import AnswerSummary
from scout_core.protocol.blocks import Block
from scout_core.protocol.cloud_session import CloudSession
from scout_core.protocol.cloud_states import CloudState
from scout_core.protocol.opening import OpenParameters
from scout_core.rpc.session_wire import encode_cloud
from scout_core.rpc.stream import BoundedQueue, StreamEnded, StreamWriter

INBOX_BYTES = 2 * 1024 * 1024
log = structlog.get_logger("scout.cloud.session")


@dataclass(slots=True)
class Outlet:
    """The stream a session answers on. ``closed`` tells the stream's handler to return."""

    writer: StreamWriter
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    error: ScoutError | None = None
    session: LiveSession | None = None

    def close(self, error: ScoutError | None = None) -> None:
        if not self.closed.is_set():
            self.error = error
            self.closed.set()


@dataclass(frozen=True, slots=True)
class Arrival:
    """An event and the stream it came on; None: a local event."""

    event: events.CloudEvent
    outlet: Outlet | None = None


class LiveSession:
    """Runs one session until it is discarded."""

    def __init__(
        self,
        host: ModelHost,
        machine: CloudSession,
        parameters: OpenParameters,
        tenant: TenantId,
        reservation: Reservation,
    ) -> None:
        self.parameters = parameters
        self.tenant = tenant
        self.inbox: BoundedQueue[Arrival] = BoundedQueue(INBOX_BYTES)
        self.uplink_bytes = 0
        self._host = host
        self._reservation = reservation
        self._machine = machine
        self._outlet: Outlet | None = None
        self._blocks: asyncio.Queue[Block | None] = asyncio.Queue()
        self._switches: list[str] = []
        self._discarded = False

    def attach(self, outlet: Outlet, event: events.OpenReceived | events.Resumed) -> None:
        """Answers on ``outlet`` from now on; a stream it replaces is told to end."""
        if self._outlet is not None:
            self._outlet.close(PeerUnavailableError("The session was resumed on another stream."))
        self._outlet = outlet
        outlet.session = self
        self.inbox.post(Arrival(event, outlet))

    def post(self, event: events.CloudEvent, outlet: Outlet | None = None) -> None:
        """Adds a small event without waiting."""
        self.inbox.post(Arrival(event, outlet))

    async def run(self) -> None:
        """Drives the machine; returns when nothing of the session is left."""
        pipeline = asyncio.create_task(self._answer())
        try:
            while not self._discarded:
                arrival = await self.inbox.get_until(self._machine.next_deadline(time.monotonic()))
                for action in self._advance(arrival):
                    await self._perform(action)
                self._let_go_of_suspended_stream()
        finally:
            pipeline.cancel()
            await asyncio.gather(pipeline, return_exceptions=True)
            self._reservation.release()
            self._close_outlet(PeerUnavailableError("The session ended; ask again."))

    def _advance(self, arrival: Arrival | None) -> tuple[actions.CloudAction, ...]:
        now = time.monotonic()
        try:
            if arrival is None:
                return self._machine.tick(now)
            if arrival.outlet is not None and arrival.outlet is not self._outlet:
                return ()  # a superseded stream has nothing to say any more
            return self._machine.receive(arrival.event, now)
        except (RemoteProtocolError, PayloadError) as error:
            return (actions.Fail(error), actions.Discard())

    async def _perform(self, action: actions.CloudAction) -> None:
        match action:
            case (
                actions.SendAccepted()
                | actions.SendCredit()
                | actions.SendAck()
                | actions.SendToken()
            ):
                await self._send(encode_cloud(action))
            case actions.SendDone():
                await self._send(encode_cloud(action))
                self._close_outlet(None)
            case actions.DeliverBlock(block):
                self._blocks.put_nowait(block)
            case actions.ApplySwitch(mode, retention, offset, cause):
                self._switches.append(f"{mode.value}@{retention:g} from byte {offset} ({cause})")
            case actions.CommitPayload():
                self._blocks.put_nowait(None)
            case actions.Fail(error):
                log.warning(
                    "session_failed",
                    session=self.parameters.session_id,
                    agent=self.parameters.agent_id,
                    reason=error.reason,
                    message=error.message,
                )
                self._close_outlet(error)
            case actions.Discard():
                self._discarded = True

    async def _send(self, message: bytes) -> None:
        if self._outlet is None:
            return
        outlet = self._outlet
        try:
            await outlet.writer.send(message)
        except StreamEnded:
            self.post(events.ConnectionLost(PeerUnavailableError("The stream broke.")), outlet)
        except TransportError as error:
            outlet.close(error)
            self.post(events.ConnectionLost(error), outlet)

    def _close_outlet(self, error: ScoutError | None) -> None:
        if self._outlet is not None:
            self._outlet.close(error)
            self._outlet = None

    def _let_go_of_suspended_stream(self) -> None:
        if self._machine.state in (CloudState.SUSPENDED, CloudState.DETACHED):
            self._close_outlet(PeerUnavailableError("The stream ended early; resume the session."))

    async def _answer(self) -> None:
        try:
            await self._answer_or_raise()
            # The kept answer is a few hundred bytes; its place is free for another request.
            self._reservation.release()
        except ScoutError as error:
            self.post(events.Abort(error))
        except Exception:  # a bug ends the session with a status, not in silence
            log.exception("session_crashed", session=self.parameters.session_id)
            self.post(events.Abort(ScoutError("Internal error: see the server's log.")))

    async def _answer_or_raise(self) -> None:
        assembler = PayloadAssembler(self._host, self.parameters, self.tenant)
        while (block := await self._blocks.get()) is not None:
            await assembler.add(block)
        queue_s = self._host.worker.queue_s
        prepared = await assembler.prepare()
        answering = Answering(
            self._host, prepared.cache, self.parameters.question, self.parameters.sampling
        )
        async for token in answering.tokens():
            self.post(events.TokenProduced(token))
        summary = AnswerSummary(
            finish_reason=answering.finish_reason,
            answer_tokens=answering.answer_tokens,
            inject_s=assembler.inject_s,
            prefill_s=assembler.prefill_s + answering.first_step_s,
            queue_s=queue_s,
            decode_s=answering.decode_s,
            uplink_bytes=self.uplink_bytes,
            execution=prepared.execution,
            numerics=f"cloud computes in {self._host.engine.compute_dtype}",
            degradation="; ".join([*self._switches, prepared.degradation]).strip("; "),
        )
        self.post(events.AnswerFinished(summary))

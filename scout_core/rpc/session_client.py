"""Runs one session against the cloud: machine, stream, payload and acks on the data channel.

The loop does what the machine says, and the stream's writer pulls the payload out of it, so that
the loop goes on while a path is dead. A dropped stream is replaced while the machine wants it; what
arrives on a superseded stream is ignored. It knows neither models nor policies: the payload comes
as encoded blocks, outcomes go to a callback.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import grpc
import structlog

from scout_core.errors import (
    DrainingError,
    RemoteProtocolError,
    TransportError,
)
from scout_core.modes import TenantId
from scout_core.protocol import actions, events
from scout_core.protocol.edge_session import EdgeSession, EdgeTimeouts
from scout_core.protocol.edge_states import EdgeState
from scout_core.protocol.opening import OpenParameters
from scout_core.protocol.payload_sender import SendPolicy
from scout_core.rpc.bounded_queue import BoundedQueue, StreamEnded
from scout_core.rpc.handlers import SESSION_METHOD
from scout_core.rpc.open_parts import encode_open
from scout_core.rpc.options import MAX_MESSAGE_BYTES
from scout_core.rpc.session_wire import decode_cloud, encode_edge
from scout_core.rpc.status import error_from_call
from scout_core.rpc.stream import StreamWriter, read_stream
from scout_core.rpc.tenancy import tenant_metadata
from scout_core.rpc.transfer_watch import LinkObserver, SessionMeasurements, TransferWatch

INBOX_BYTES: Final = 8 * 1024 * 1024
RECONNECT_PAUSE_S: Final = 0.2
END_GRACE_S: Final = 1.0
"""Longest wait for the cloud to end a stream that is done or cancelled: normally a round trip. A
stream that is reset at once may lose the cancel, and the cloud would keep the session."""
QUIET_S: Final = 2.0
"""A cloud that is heard at all is heard this often (it repeats acks after 1.5 s); a silent one is
not waited for at the end."""
FINAL_CODES: Final = frozenset({"UNIMPLEMENTED", "UNAUTHENTICATED", "PERMISSION_DENIED"})
"""Transport statuses that a new stream cannot heal."""

PayloadItem = bytes | events.ModeSwitched
"""An encoded block, or the news that the following ones are coded otherwise."""
Outcome = actions.SessionAccepted | actions.DeliverToken | actions.Complete
log = structlog.get_logger("scout.rpc.session")


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """What all sessions of an agent share."""

    tenant: TenantId
    send_policy: SendPolicy
    timeouts: EdgeTimeouts
    lookahead_bytes: int
    """Payload made before there is credit for it."""
    largest_message_bytes: int = MAX_MESSAGE_BYTES
    """That the cloud takes; ``send_policy`` must keep to it."""


@dataclass(slots=True)
class _Stream:
    """One connection of the session."""

    call: grpc.aio.StreamStreamCall[Any, Any]
    writer: StreamWriter
    reader: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class _Arrival:
    event: events.EdgeEvent
    stream: _Stream | None = field(default=None)


class SessionClient:
    """One session; call ``run`` once.

    Args:
        channel: the data channel.
        options: shared by the agent's sessions.
        on_outcome: receives acceptance, tokens and the summary, in order.
        link: receives goodput observations.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        options: SessionOptions,
        on_outcome: Callable[[Outcome], None],
        link: LinkObserver,
    ) -> None:
        self.machine = EdgeSession(options.send_policy, options.timeouts)
        self.heard_s = time.monotonic()
        """When the cloud's last message came; until then, when the client was made."""
        self._channel = channel
        self._options = options
        self._on_outcome = on_outcome
        self._inbox: BoundedQueue[_Arrival] = BoundedQueue(INBOX_BYTES)
        self._room = asyncio.Event()
        self._spare_credit = asyncio.Event()
        self._stream: _Stream | None = None
        self._watch = TransferWatch(link)
        self._reconnecting: asyncio.Task[None] | None = None
        self._payload_bytes = 0
        self._cancel_sent = False
        self._broken: RemoteProtocolError | None = None
        """What an ack or a credit did that they may not do."""

    @property
    def measurements(self) -> SessionMeasurements:
        """What the session has measured so far."""
        return self._watch.measurements

    @property
    def payload_bytes(self) -> int:
        """Length of the payload stream so far."""
        return self._payload_bytes

    async def credited(self) -> None:
        """Waits until of a block that is made now something could be sent at once. On a scheduled
        uplink one that was made before keeps its coding while its session waits for its turn."""
        while self.machine.spare_credit_bytes <= 0:
            self._spare_credit.clear()
            await self._spare_credit.wait()

    async def run(self, parameters: OpenParameters, payload: AsyncIterator[PayloadItem]) -> None:
        """Sends the payload and relays the answer.

        Raises:
            ScoutError: whatever ended the session early, from either end.
        """
        self._watch.expect_round_trip(parameters.round_trip_s)
        feeding = asyncio.create_task(self._feed(payload))
        try:
            self._connect()
            self._post(events.Start(parameters))
            while self.machine.is_open:
                arrival = await self._inbox.get_until(self._next_look())
                for action in self._advance(arrival):
                    await self._perform(action)
                self._watch.note_silence(time.monotonic())
                self._make_room()
                self._pull()
                if feeding.done():
                    feeding.result()
            if self._broken is not None:
                raise self._broken
        finally:
            for task in (feeding, self._reconnecting):
                if task is not None:
                    task.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
            await self._leave()
            self._inbox.close()

    async def _leave(self) -> None:
        """Lets the cloud end the stream; one nobody waits for any more is cancelled first."""
        if self.machine.is_open:
            for action in self.machine.receive(events.Cancel(), time.monotonic()):
                await self._perform(action)
        over = self._cancel_sent or self.machine.state is EdgeState.COMPLETE
        heard = time.monotonic() - self.heard_s < QUIET_S
        if over and heard and self._stream is not None and self._stream.reader is not None:
            await asyncio.wait({self._stream.reader}, timeout=END_GRACE_S)
        await self._disconnect()

    async def _feed(self, payload: AsyncIterator[PayloadItem]) -> None:
        """Blocks and switches into the machine, no more than the lookahead before the credit.

        The next block is asked for only when it can soon be sent, so that its maker can still
        choose how to code it.
        """
        complete = False
        try:
            async for item in payload:
                if isinstance(item, events.ModeSwitched):
                    self._post(item)
                    continue
                self._payload_bytes += len(item)
                await self._append(item)
                while self._ahead_bytes > self._options.lookahead_bytes:
                    self._room.clear()
                    await self._room.wait()
            self._post(events.PayloadEnded())
            complete = True
        finally:
            if not complete:  # the loop ends, and raises what happened here
                self._post(events.Cancel())

    async def _append(self, block: bytes) -> None:
        """Behind the events that wait, if there are any."""
        event = events.PayloadAppended(block)
        if len(self._inbox):
            await self._inbox.put(_Arrival(event), len(block))
            return
        self.machine.receive(event, time.monotonic())
        self._pull()

    def _pull(self) -> None:
        if self._stream is not None:
            self._stream.writer.pull()

    @property
    def _ahead_bytes(self) -> int:
        """Payload that waits for credit, here or in the inbox."""
        return self._inbox.held_bytes + self.machine.unsent_bytes

    def _post(self, event: events.EdgeEvent, stream: _Stream | None = None) -> None:
        self._inbox.post(_Arrival(event, stream))

    def _advance(self, arrival: _Arrival | None) -> tuple[actions.EdgeAction, ...]:
        now = time.monotonic()
        if arrival is None:
            return self.machine.tick(now)
        if arrival.stream is not None and arrival.stream is not self._stream:
            return ()
        performed = self.machine.receive(arrival.event, now)
        if isinstance(arrival.event, events.Acked):
            self._watch.acked(arrival.event.received_bytes, arrival.event.arrival_us, now)
        return performed

    def _take(self, event: events.EdgePeerEvent, stream: _Stream) -> None:
        """What a stream brought: acks and credit, which ask for nothing, are handled at once; all
        else, and what comes behind it, by the loop."""
        if len(self._inbox) or not isinstance(event, events.Acked | events.CreditGranted):
            self._post(event, stream)
            return
        try:
            self._advance(_Arrival(event, stream))
        except RemoteProtocolError as error:
            self._broken = error
            self._inbox.stir()
        self._make_room()
        self._pull()

    def _next_look(self) -> float | None:
        """When the loop looks at its clock, if nothing comes before."""
        due, look = self.machine.next_deadline(), self._watch.next_look(time.monotonic())
        if due is None or look is None:
            return due if look is None else look
        return min(due, look)

    def _next_message(self, call: object) -> bytes | None:
        """The payload's next message, which the writer of ``call`` is about to write."""
        if self._stream is None or self._stream.call is not call:
            return None
        now = time.monotonic()
        action = self.machine.next_send(now)
        match action:
            case actions.SendChunk():
                self._watch.chunk_sent(action.offset + len(action.data), now)
                self._make_room()
            case None:
                if self.machine.is_credit_blocked:
                    self._watch.credit_blocked()
                return None
            case actions.SendFinish():
                self._inbox.stir()  # the machine now waits for the answer
            case actions.SendSwitch():
                pass
        message = encode_edge(action)
        self.measurements.uplink_bytes += len(message)
        return message

    def _make_room(self) -> None:
        if not self._room.is_set() and self._ahead_bytes <= self._options.lookahead_bytes:
            self._room.set()
        if self.machine.spare_credit_bytes > 0:
            self._spare_credit.set()

    async def _perform(self, action: actions.EdgeAction) -> None:
        match action:
            case actions.SendOpen(parameters):
                for part in encode_open(parameters, self._options.largest_message_bytes):
                    await self._send(part)
            case actions.SendCancel():
                self._cancel_sent = True
                await self._send(encode_edge(action))
            case actions.SessionAccepted(_, _, resumed):
                if resumed:
                    self._watch.resumed(self.machine.acked_bytes)
                self._on_outcome(action)
            case actions.DeliverToken() | actions.Complete():
                self._on_outcome(action)
            case actions.Reconnect(_, cause):
                log.warning("session_reconnecting", reason=cause.reason, message=cause.message)
                await self._disconnect()
                self._reconnecting = asyncio.create_task(self._reconnect())
            case actions.Fail(error):
                raise error

    async def _send(self, message: bytes) -> None:
        stream = self._stream
        if stream is None:
            return
        self.measurements.uplink_bytes += len(message)
        try:
            await stream.writer.send(message)
        except StreamEnded:
            return  # the reader of this stream reports why
        except TransportError as error:
            self._post(events.ConnectionLost(error), stream)

    async def _reconnect(self) -> None:
        await asyncio.sleep(RECONNECT_PAUSE_S)
        self._connect()
        self._post(events.Reconnected(), self._stream)

    def _connect(self) -> None:
        call = self._channel.stream_stream(
            SESSION_METHOD, request_serializer=None, response_deserializer=None
        )(metadata=tenant_metadata(self._options.tenant))
        stream = _Stream(call, StreamWriter(call, source=partial(self._next_message, call)))
        stream.writer.start()
        stream.reader = asyncio.create_task(self._read(stream))
        self._stream = stream

    async def _disconnect(self) -> None:
        stream, self._stream = self._stream, None
        if stream is None:
            return
        stream.call.cancel()
        await stream.writer.stop()
        if stream.reader is not None:
            stream.reader.cancel()
            await asyncio.gather(stream.reader, return_exceptions=True)

    async def _read(self, stream: _Stream) -> None:
        try:
            while True:
                data = await read_stream(stream.call)
                self.heard_s = time.monotonic()
                self.measurements.downlink_bytes += len(data)
                for event in decode_cloud(data):
                    self._take(event, stream)
        except StreamEnded as end:
            self._post(self._ending(end), stream)
        except RemoteProtocolError as error:
            self._post(events.PeerFailed(error), stream)

    def _ending(self, end: StreamEnded) -> events.EdgeEvent:
        """What the end of a stream means: gone for good, or worth another stream."""
        if end.failure is None:
            return events.StreamEnded()
        error = error_from_call(end.failure)
        final = error.details.get("grpc_code") in FINAL_CODES
        if isinstance(error, TransportError) and not isinstance(error, DrainingError) and not final:
            return events.ConnectionLost(error)
        return events.PeerFailed(error)

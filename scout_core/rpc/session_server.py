"""One session as its cloud end keeps it: machine, inbox and the stream it has just now.

A session outlives its stream: after a drop the machine waits for the edge to come back with the
same id. The loop does what the machine says and decides nothing about the protocol; blocks go to a
consumer, of which it knows neither model nor store.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import grpc
import structlog

from scout_core.errors import (
    PayloadError,
    PeerTimeoutError,
    PeerUnavailableError,
    RemoteProtocolError,
    ScoutError,
    SlowConsumerError,
)
from scout_core.protocol import actions, events
from scout_core.protocol.blocks import Block
from scout_core.protocol.cloud_session import CloudSession
from scout_core.protocol.cloud_states import CloudState
from scout_core.protocol.opening import OpenParameters, UplinkShare
from scout_core.rpc.bounded_queue import BoundedQueue, StreamEnded
from scout_core.rpc.open_parts import OpenAssembly
from scout_core.rpc.session_wire import (
    SendAckWithCredit,
    decode_edge,
    encode_cloud,
    join_credit,
)
from scout_core.rpc.stream import DEFAULT_WRITE_TIMEOUT_S, StreamWriter, read_stream

INBOX_BYTES: Final = 2 * 1024 * 1024
OPEN_TIMEOUT_S: Final = 10.0
log = structlog.get_logger("scout.rpc.session")


class PayloadConsumer(Protocol):
    """Takes what a session delivers, in stream order."""

    async def take_block(self, block: Block) -> None:
        """A complete block; nothing is committed yet. The block counts as consumed when this
        returns: waiting holds back credit, never acks. A ScoutError ends the session."""
        ...

    def note_switch(self, switch: actions.ApplySwitch) -> None:
        """Blocks taken from now on are coded in another mode."""
        ...

    def note_suspended(self) -> None:
        """The stream was lost before the payload was complete; another may come."""
        ...

    def commit(self) -> None:
        """Every block was taken and the digest agrees: answer now."""
        ...


@dataclass(slots=True)
class Outlet:
    """The stream a session answers on. ``closed`` tells the stream's handler to return."""

    writer: StreamWriter
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    error: ScoutError | None = None
    session: ServedSession | None = None

    def close(self, error: ScoutError | None = None) -> None:
        if not self.closed.is_set():
            self.error = error
            self.closed.set()


@dataclass(frozen=True, slots=True)
class Arrival:
    """An event and the stream it came on; None: a local event."""

    event: events.CloudEvent
    outlet: Outlet | None = None


Delivery = actions.DeliverBlock | actions.ApplySwitch | actions.CommitPayload


class ServedSession:
    """Runs one session until it is discarded."""

    def __init__(
        self, machine: CloudSession, parameters: OpenParameters, consumer: PayloadConsumer
    ) -> None:
        self.parameters = parameters
        self._inbox: BoundedQueue[Arrival] = BoundedQueue(INBOX_BYTES)
        self.uplink_bytes = 0
        self._machine = machine
        self._consumer = consumer
        self._outlet: Outlet | None = None
        # Bounded by the machine: it grants no credit while too much was delivered (and a
        # payload has a limited number of blocks and switches).
        self._deliveries: asyncio.Queue[Delivery] = asyncio.Queue()
        self._discarded = False
        self._heard = asyncio.Event()
        self.failure: ScoutError | None = None
        """What ended the session early; None: nothing did."""

    @property
    def received_bytes(self) -> int:
        """Payload received without a gap; at its full length once the payload is complete."""
        return self._machine.received_bytes

    @property
    def share(self) -> UplinkShare | None:
        """What the edge was told with the acceptance on a scheduled uplink."""
        return self._machine.share

    @property
    def switches(self) -> tuple[events.SwitchReceived, ...]:
        """The switches announced so far; none is missing of the bytes received."""
        return self._machine.switches

    @property
    def is_complete(self) -> bool:
        """Whether the whole answer was sent, and the session waits only in case it got lost."""
        return self._machine.state is CloudState.COMPLETE

    def attach(self, outlet: Outlet, event: events.OpenReceived | events.Resumed) -> None:
        """Answers on ``outlet`` from now on; a stream it replaces is told to end."""
        if self._outlet is not None:
            self._outlet.close(PeerUnavailableError("The session was resumed on another stream."))
        self._outlet = outlet
        outlet.session = self
        self._inbox.post(Arrival(event, outlet))

    async def may_be_heard(self) -> None:
        """Waits while the edge has nothing to say. HTTP/2 holds back what is not read: of a flood
        before any credit a window crosses the uplink, and no more."""
        await self._heard.wait()

    def lose(self, outlet: Outlet) -> None:
        """The stream was cancelled by the edge, or broke. One that was never heard has nothing
        to go on with, and its edge may have cancelled it unheard: it is over."""
        if self._heard.is_set():
            lost = PeerUnavailableError("The edge's stream was cancelled.")
            self.post(events.ConnectionLost(lost), outlet)
        else:
            self.post(events.CancelReceived(), outlet)

    def take(self, event: events.CloudPeerEvent, outlet: Outlet) -> bool:
        """Handles what came on a stream at once; False: events wait before it, ``queue`` it."""
        if len(self._inbox):
            return False
        self._handle(event, outlet)
        return True

    async def queue(self, event: events.CloudPeerEvent, outlet: Outlet, size_bytes: int) -> None:
        """Leaves what came on a stream to the loop, once there is room for it.

        Raises:
            StreamEnded: the session is over.
        """
        await self._inbox.put(Arrival(event, outlet), size_bytes)

    def post(self, event: events.CloudEvent, outlet: Outlet | None = None) -> None:
        """Adds a small event without waiting."""
        self._inbox.post(Arrival(event, outlet))

    def _handle(self, event: events.CloudEvent, outlet: Outlet | None = None) -> None:
        """Handles an event at once, without the loop, which only learns when to wake."""
        now = time.monotonic()
        self._perform(self._advance(event, outlet, now))
        due_s = self._machine.next_deadline(now)
        if self._discarded:
            self._inbox.stir()
        elif due_s is not None:
            self._inbox.hasten(due_s)

    async def run(self) -> None:
        """Drives the machine; returns when nothing of the session is left."""
        delivering = asyncio.create_task(self._deliver())
        try:
            while not self._discarded:
                arrival = await self._inbox.get_until(self._machine.next_deadline(time.monotonic()))
                now = time.monotonic()
                self._perform(
                    self._machine.tick(now)
                    if arrival is None
                    else self._advance(arrival.event, arrival.outlet, now)
                )
        finally:
            delivering.cancel()
            await asyncio.gather(delivering, return_exceptions=True)
            self._inbox.close()
            self._close_outlet(PeerUnavailableError("The session ended; ask again."))

    def _perform(self, wanted: tuple[actions.CloudAction, ...]) -> None:
        """Does what the machine wants done, and lets the edge be heard once it may speak."""
        if wanted:
            for action in join_credit(wanted):
                self._perform_one(action)
        if not self._heard.is_set() and not self._machine.expects_silence:
            self._heard.set()

    def _advance(
        self, event: events.CloudEvent, outlet: Outlet | None, now: float
    ) -> tuple[actions.CloudAction, ...]:
        """What the machine wants done about an event and, None for a local one, its stream."""
        if outlet is not None and outlet is not self._outlet:
            return ()  # a superseded stream has nothing to say any more
        try:
            wanted = self._machine.receive(event, now)
        except (RemoteProtocolError, PayloadError) as error:
            return (actions.Fail(error), actions.Discard())
        match event:
            case events.CancelReceived():
                log.info("session_cancelled", session=self.parameters.session_id)
                self._close_outlet(None)  # the edge asked for this end
            case events.ConnectionLost() | events.StreamEnded():
                self._let_go_of_suspended_stream()
            case _:
                pass
        return wanted

    def _perform_one(self, action: actions.CloudAction | SendAckWithCredit) -> None:
        match action:
            case (
                actions.SendAccepted()
                | actions.SendCredit()
                | actions.SendAck()
                | SendAckWithCredit()
                | actions.SendToken()
            ):
                self._send(encode_cloud(action))
            case actions.SendDone():
                self._send(encode_cloud(action))
                self._close_outlet(None)
            case actions.DeliverBlock() | actions.ApplySwitch() | actions.CommitPayload():
                self._deliveries.put_nowait(action)
            case actions.Fail(error):
                self._fail(error)
            case actions.Discard():
                self._discarded = True

    def _fail(self, error: ScoutError) -> None:
        """Ends the stream with the error; its call is logged then, else the failure is here."""
        self.failure = error
        error.details.setdefault("session", self.parameters.session_id)
        error.details.setdefault("agent", self.parameters.agent_id)
        if self._outlet is None:
            facts = {"message": error.message, "details": error.details}
            log.warning("session_failed", reason=error.reason, **facts)
        self._close_outlet(error)

    async def _deliver(self) -> None:
        """Hands deliveries on in order, beside the loop, so that acks and credit go on."""
        try:
            while True:
                match await self._deliveries.get():
                    case actions.DeliverBlock(block):
                        await self._consumer.take_block(block)
                        self._handle(events.PayloadConsumed(block.end_offset))
                    case actions.ApplySwitch() as switch:
                        self._consumer.note_switch(switch)
                    case actions.CommitPayload():
                        self._consumer.commit()
        except ScoutError as error:
            self.post(events.Abort(error))
        except Exception:  # a bug ends the session with a status, not in silence
            log.exception("session_crashed", session=self.parameters.session_id)
            self.post(events.Abort(ScoutError("Internal error: see the server's log.")))

    def _send(self, message: bytes) -> None:
        if self._outlet is None:
            return
        outlet = self._outlet
        try:
            if outlet.writer.offer(message):
                return
        except StreamEnded:
            self.post(events.ConnectionLost(PeerUnavailableError("The stream broke.")), outlet)
            return
        error = SlowConsumerError("The edge does not read what it is sent; the stream is closed.")
        outlet.close(error)
        self.post(events.ConnectionLost(error), outlet)

    def _close_outlet(self, error: ScoutError | None) -> None:
        if self._outlet is not None:
            self._outlet.close(error)
            self._outlet = None

    def _let_go_of_suspended_stream(self) -> None:
        if self._machine.state in (CloudState.SUSPENDED, CloudState.DETACHED):
            if self._outlet is not None and self._machine.is_suspended:
                self._consumer.note_suspended()
            self._close_outlet(PeerUnavailableError("The stream ended early; resume the session."))


OpenSession = Callable[[events.OpenReceived, Outlet], ServedSession]
"""The session that an open names, new or resumed and already attached to the outlet; raises the
ScoutError that says why it cannot be served."""


async def serve_session_stream(
    context: grpc.aio.ServicerContext[Any, Any],
    open_session: OpenSession,
    write_timeout_s: float = DEFAULT_WRITE_TIMEOUT_S,
) -> None:
    """Behaviour of Session on raw messages: one call per stream, not per session.

    Args:
        context: the call.
        open_session: finds or makes the session.
        write_timeout_s: longest wait for an edge that does not read.

    Raises:
        ScoutError: what the stream is to end with.
    """
    async with StreamWriter(context, write_timeout_s=write_timeout_s) as writer:
        outlet = Outlet(writer)
        reader = asyncio.create_task(_read(context, outlet, open_session))
        try:
            await outlet.closed.wait()
            await writer.flush()
        except asyncio.CancelledError:  # the client cancelled, or its connection broke
            if outlet.session is not None:
                outlet.session.lose(outlet)
            raise
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
    if outlet.error is not None:
        raise outlet.error


async def _read(
    context: grpc.aio.ServicerContext[Any, Any], outlet: Outlet, open_session: OpenSession
) -> None:
    """Feeds one stream's messages to its session, until the stream ends."""
    timer = asyncio.get_running_loop().call_later(
        OPEN_TIMEOUT_S, outlet.close, PeerTimeoutError("No `open` arrived; send it first.")
    )
    session: ServedSession | None = None
    assembly, opened = OpenAssembly(), None
    try:
        while opened is None:
            opened = assembly.take(await read_stream(context))
        timer.cancel()
        session = open_session(opened, outlet)
        session.uplink_bytes += assembly.received_bytes
        await session.may_be_heard()
        while not outlet.closed.is_set():  # of a stream that has failed no more is let in
            data = await read_stream(context)
            session.uplink_bytes += len(data)
            event = decode_edge(data)
            if not session.take(event, outlet):
                await session.queue(event, outlet, len(data))
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

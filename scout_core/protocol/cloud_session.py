"""The cloud's half of a session: takes the payload under credit and sends the answer.

This module owns what the cloud does; which event is allowed when is ``cloud_states.TRANSITIONS``.
It reads no clock: every call takes ``now`` in seconds of one monotonic clock. It knows neither
protobuf nor how a block is decoded, and finding the session of a resuming edge is the daemon's
business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from scout_core.errors import (
    DigestMismatchError,
    PayloadError,
    PeerTimeoutError,
    RemoteProtocolError,
    ScoutError,
)
from scout_core.protocol.actions import (
    CloudAction,
    CommitPayload,
    Discard,
    Fail,
    SendAccepted,
)
from scout_core.protocol.answer_log import AnswerLog
from scout_core.protocol.cloud_states import LOCAL_EVENTS, TRANSITIONS, CloudState
from scout_core.protocol.events import (
    Abort,
    AcceptDecided,
    AnswerFinished,
    CancelReceived,
    ChunkReceived,
    CloudEvent,
    CloudLocalEvent,
    CloudPeerEvent,
    ConnectionLost,
    FinishReceived,
    OpenReceived,
    PayloadConsumed,
    RateAllocated,
    Resumed,
    StreamEnded,
    SwitchReceived,
    TimerExpired,
    TokenProduced,
)
from scout_core.protocol.opening import ContextState, OpenParameters, UplinkShare
from scout_core.protocol.payload_receiver import PayloadReceiver, ReceivePolicy
from scout_core.protocol.transitions import StateTracker

_ENDED = (CloudState.FAILED, CloudState.DISCARDED)


@dataclass(frozen=True, slots=True)
class CloudTimeouts:
    """Seconds the cloud waits. ``resume_window_s`` 0: a lost stream discards the session."""

    idle_s: float = 60.0
    """Without any message from the edge before the payload is complete; the edge may be busy
    with its prefill."""
    keepalive_s: float = 1.5
    """An ack is repeated after this much silence, so that the edge notices a dead path in 5 s."""
    resume_window_s: float = 30.0
    linger_s: float = 30.0
    """How long a complete answer is kept in case its end was lost."""


class CloudSession:
    """One request's session, cloud side. ``receive`` and ``tick`` return what to do, in order."""

    def __init__(
        self, policy: ReceivePolicy | None = None, timeouts: CloudTimeouts | None = None
    ) -> None:
        self._policy = policy or ReceivePolicy()
        self._timeouts = timeouts or CloudTimeouts()
        self._states = StateTracker(TRANSITIONS, CloudState.IDLE, LOCAL_EVENTS)
        self._receiver = PayloadReceiver(self._policy, 0.0)
        self._parameters: OpenParameters | None = None
        self._accept = AcceptDecided(ContextState.ABSENT)
        self._undelivered: list[CloudAction] = []
        self._finish: FinishReceived | None = None
        self._finish_on_stream = False
        self._answer = AnswerLog()
        self._heard_at = 0.0
        self._sent_at = 0.0
        self._forget_at = 0.0

    @property
    def state(self) -> CloudState:
        """Where the session stands."""
        return self._states.current

    @property
    def is_open(self) -> bool:
        """Whether the daemon must keep the session."""
        return self._states.current not in _ENDED

    @property
    def parameters(self) -> OpenParameters | None:
        """The request as last opened; None before Open."""
        return self._parameters

    @property
    def received_bytes(self) -> int:
        """Payload bytes received without a gap."""
        return self._receiver.received

    @property
    def share(self) -> UplinkShare | None:
        """What the edge was told with the acceptance; None: not accepted, or not scheduled."""
        return self._accept.share

    @property
    def switches(self) -> tuple[SwitchReceived, ...]:
        """All switches announced so far, in stream order."""
        return self._receiver.switches

    @property
    def waiting_bytes(self) -> int:
        """Payload bytes kept behind a gap."""
        return self._receiver.waiting_bytes

    @property
    def credit_bytes(self) -> int:
        """Payload bytes granted in total."""
        return self._receiver.window.limit

    @property
    def is_suspended(self) -> bool:
        """Whether the payload waits for another stream."""
        return self._states.current is CloudState.SUSPENDED

    def promised_bytes(self, now: float) -> int:
        """As ``credit_bytes``, and what has gathered at the allocated rate to be granted next."""
        return self._receiver.window.promised(now)

    @property
    def expects_silence(self) -> bool:
        """Whether an edge that keeps to the rules has nothing to say yet: it was granted nothing,
        and whatever it offered has a payload."""
        offers = () if self._parameters is None else self._parameters.offers
        waiting = self._states.current in (CloudState.DECIDING, CloudState.RECEIVING)
        return (
            waiting
            and self.credit_bytes == 0
            and min((offer.payload_bytes for offer in offers), default=0) > 0
        )

    @property
    def goodput_bytes_per_s(self) -> float:
        """Arrival rate that the credit window is built on; 0.0: unknown."""
        return self._receiver.window.goodput_bytes_per_s

    def receive(self, event: CloudEvent, now: float) -> tuple[CloudAction, ...]:
        """Takes one event.

        Raises:
            LocalProtocolError: an own event that is not possible now; nothing changed.
            RemoteProtocolError, PayloadError: the edge broke the protocol or sent a block that
                means nothing. The session is FAILED: end the stream with the error's status and
                forget the session.
        """
        try:
            if not self._states.admit(type(event)):
                return ()
            if isinstance(event, CloudPeerEvent):
                return self._peer(event, now)
            return self._local(event, now)
        except (RemoteProtocolError, PayloadError):
            self._release(CloudState.FAILED)
            raise

    def next_deadline(self, now: float) -> float | None:
        """When ``tick`` has something to do; None: only an event can change anything."""
        state = self._states.current
        match state:
            case CloudState.RECEIVING:
                due = min(self._keepalive_at(), self._heard_at + self._timeouts.idle_s)
                ack_at = self._receiver.next_deadline(now)
                return due if ack_at is None else min(due, ack_at)
            case CloudState.ANSWERING:
                return self._keepalive_at()
            case CloudState.SUSPENDED | CloudState.DETACHED | CloudState.COMPLETE:
                return self._forget_at
            case CloudState.IDLE | CloudState.DECIDING | CloudState.FAILED | CloudState.DISCARDED:
                return None
            case _:
                assert_never(state)

    def tick(self, now: float) -> tuple[CloudAction, ...]:
        """Acts on deadlines that have passed; harmless at any time."""
        deadline = self.next_deadline(now)
        if deadline is None or now < deadline:
            return ()
        self._states.admit(TimerExpired)
        match self._states.current:
            case CloudState.RECEIVING:
                return self._tick_receiving(now)
            case CloudState.ANSWERING:
                self._sent_at = now
                return (self._receiver.ack(now),)
            case _:
                return self._discard()

    def _local(self, event: CloudLocalEvent, now: float) -> tuple[CloudAction, ...]:
        match event:
            case AcceptDecided():
                return self._accepted(event, now)
            case RateAllocated():
                self._receiver.window.allocate(event.rate_bytes_per_s, now, releases=event.releases)
                return self._acknowledge_if_receiving(now)
            case PayloadConsumed():
                credit_waited = self._receiver.consumed(event.offset)
                return self._acknowledge_if_receiving(now) if credit_waited else ()
            case TokenProduced():
                return self._if_attached(self._answer.add(event.token), now)
            case AnswerFinished():
                return self._answered(event, now)
            case ConnectionLost():
                return self._detach(now)
            case Abort():
                return self._abort(event.error)
            case _:
                assert_never(event)

    def _peer(self, event: CloudPeerEvent, now: float) -> tuple[CloudAction, ...]:
        self._heard_at = now
        match event:
            case ChunkReceived():
                return self._chunk(event, now)
            case OpenReceived():
                self._parameters = event.parameters
                self._receiver = PayloadReceiver(self._policy, event.parameters.round_trip_s)
                self._states.enter(CloudState.DECIDING)
                return ()
            case Resumed():
                return self._resumed(event.parameters, now)
            case SwitchReceived():
                self._expect_unfinished("switch")
                self._receiver.switch(event)
                return ()
            case FinishReceived():
                return self._finished(event, now)
            case CancelReceived():
                return self._discard()
            case StreamEnded():
                return self._stream_ended(now)
            case _:
                assert_never(event)

    def _accepted(self, event: AcceptDecided, now: float) -> tuple[CloudAction, ...]:
        self._receiver.window.allocate(event.rate_bytes_per_s, now)
        self._accept = event
        self._heard_at = self._sent_at = now
        actions: list[CloudAction] = [self._send_accepted(resume_offset=0, now=now)]
        actions += self._receiver.acknowledge(now, at_once=True)
        actions += self._undelivered
        self._undelivered = []
        self._states.enter(CloudState.RECEIVING if self._finish is None else CloudState.ANSWERING)
        return tuple(actions)

    def _chunk(self, event: ChunkReceived, now: float) -> tuple[CloudAction, ...]:
        if self._finish is not None:
            self._expect_unfinished("chunk")
        deliveries = self._receiver.chunk(event, now)
        if self._states.current is CloudState.DECIDING:
            self._undelivered += deliveries
            return ()
        acknowledged = self._receiver.acknowledge(now)
        if acknowledged:
            self._sent_at = now
        return (*acknowledged, *deliveries)

    def _finished(self, event: FinishReceived, now: float) -> tuple[CloudAction, ...]:
        if self._finish_on_stream:
            raise RemoteProtocolError("A second finish on one stream; finish once.")
        self._finish_on_stream = True
        if self._finish is not None:  # sent again after a resume
            if event != self._finish:
                raise DigestMismatchError("The resumed session finishes with another payload.")
            return ()
        deliveries = self._receiver.finish(event)
        deliveries.append(CommitPayload(event.total_bytes, event.digest))
        self._finish = event
        if self._states.current is CloudState.DECIDING:
            self._undelivered += deliveries
            return ()
        self._sent_at = now
        self._states.enter(CloudState.ANSWERING)
        return (*self._receiver.acknowledge(now, at_once=True), *deliveries)

    def _resumed(self, parameters: OpenParameters, now: float) -> tuple[CloudAction, ...]:
        """The new stream starts like any other; the answer so far is repeated on it."""
        if self._parameters is None or not self._parameters.names_same_request(parameters):
            raise RemoteProtocolError(
                "The session id belongs to another request; open a new session."
            )
        self._parameters = parameters
        self._finish_on_stream = False
        self._sent_at = now
        self._receiver.resume()
        actions: list[CloudAction] = [self._send_accepted(self._receiver.received, now)]
        actions += self._answer.repeated()
        state = self._states.current
        if state is CloudState.DETACHED:
            self._states.enter(CloudState.ANSWERING)
        elif state is CloudState.SUSPENDED:
            self._states.enter(CloudState.RECEIVING)
        return tuple(actions)

    def _answered(self, event: AnswerFinished, now: float) -> tuple[CloudAction, ...]:
        actions = self._if_attached(self._answer.finish(event.summary), now)
        if actions:
            self._forget_at = now + self._timeouts.linger_s
        self._states.enter(CloudState.COMPLETE)
        return actions

    def _stream_ended(self, now: float) -> tuple[CloudAction, ...]:
        """Before finish an ended stream is a lost one."""
        if self._states.current is CloudState.DECIDING and self._finish is not None:
            return ()
        return self._detach(now)

    def _detach(self, now: float) -> tuple[CloudAction, ...]:
        state = self._states.current
        if state in (CloudState.IDLE, CloudState.DECIDING) or self._timeouts.resume_window_s <= 0:
            return self._discard()
        self._forget_at = now + self._timeouts.resume_window_s
        self._states.enter(
            CloudState.DETACHED if state is CloudState.ANSWERING else CloudState.SUSPENDED
        )
        return ()

    def _tick_receiving(self, now: float) -> tuple[CloudAction, ...]:
        if now >= self._heard_at + self._timeouts.idle_s:
            return self._abort(
                PeerTimeoutError(
                    f"The edge sent nothing for {self._timeouts.idle_s:g} s; the session is given "
                    "up. Open a new one."
                )
            )
        actions = self._acknowledge_if_receiving(now)
        if not actions and now >= self._keepalive_at():
            self._sent_at = now
            return (self._receiver.ack(now),)
        return actions

    def _send_accepted(self, resume_offset: int, now: float) -> SendAccepted:
        credit_bytes = max(self._receiver.grant(now), resume_offset)
        accept = self._accept
        return SendAccepted(
            accept.context_state, resume_offset, credit_bytes, accept.queue_s, accept.share
        )

    def _acknowledge_if_receiving(self, now: float) -> tuple[CloudAction, ...]:
        if self._states.current is not CloudState.RECEIVING:
            return ()
        actions = self._receiver.acknowledge(now)
        if not actions:
            return ()
        self._sent_at = now
        return tuple(actions)

    def _if_attached(self, action: CloudAction, now: float) -> tuple[CloudAction, ...]:
        if self._states.current is not CloudState.ANSWERING:
            return ()
        self._sent_at = now
        return (action,)

    def _expect_unfinished(self, what: str) -> None:
        if self._finish is not None:
            raise RemoteProtocolError(f"A {what} after finish; the payload was complete.")

    def _keepalive_at(self) -> float:
        return self._sent_at + self._timeouts.keepalive_s

    def _abort(self, error: ScoutError) -> tuple[CloudAction, ...]:
        self._states.enter(CloudState.FAILED)
        self._release(CloudState.FAILED)
        return (Fail(error), Discard())

    def _discard(self) -> tuple[CloudAction, ...]:
        self._states.enter(CloudState.DISCARDED)
        self._release(CloudState.DISCARDED)
        return (Discard(),)

    def _release(self, state: CloudState) -> None:
        self._states.fail(state)
        self._receiver = PayloadReceiver(self._policy, 0.0)
        self._undelivered = []
        self._answer = AnswerLog()

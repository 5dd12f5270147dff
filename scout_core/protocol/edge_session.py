"""The edge's half of a session: sends the payload within its credit and receives the answer.

This module owns what the edge does; which event is allowed when is ``edge_states.TRANSITIONS``.
The payload is pulled: whoever writes to the stream asks for ``next_send`` when it can take more.
It reads no clock: every call takes ``now`` in seconds of one monotonic clock. It knows neither
protobuf nor how a block is coded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import assert_never

from scout_core.errors import (
    LocalProtocolError,
    PeerTimeoutError,
    PeerUnavailableError,
    RemoteProtocolError,
    ScoutError,
)
from scout_core.protocol.actions import (
    Complete,
    DeliverToken,
    EdgeAction,
    Fail,
    PayloadSend,
    Reconnect,
    SendCancel,
    SendFinish,
    SendOpen,
    SessionAccepted,
)
from scout_core.protocol.edge_states import LOCAL_EVENTS, TRANSITIONS, EdgeState
from scout_core.protocol.events import (
    Accepted,
    Acked,
    AnswerDone,
    Cancel,
    ConnectionLost,
    CreditGranted,
    EdgeEvent,
    EdgeLocalEvent,
    EdgePeerEvent,
    FinishPulled,
    ModeSwitched,
    PayloadAppended,
    PayloadEnded,
    PeerFailed,
    Reconnected,
    Start,
    StreamEnded,
    TimerExpired,
    TokenReceived,
)
from scout_core.protocol.opening import OpenParameters
from scout_core.protocol.payload_sender import PayloadSender, SendPolicy
from scout_core.protocol.transitions import StateTracker

_SENDING = (EdgeState.OPENING, EdgeState.STREAMING, EdgeState.ANSWERING)
_ATTACHED = (
    EdgeState.OPENING,
    EdgeState.STREAMING,
    EdgeState.ANSWERING,
    EdgeState.RESUMING,
)
_ENDED = (EdgeState.COMPLETE, EdgeState.FAILED, EdgeState.CANCELLED)


@dataclass(frozen=True, slots=True)
class EdgeTimeouts:
    """Seconds the edge waits. ``resume_window_s`` 0: a lost stream fails the session."""

    accept_s: float = 5.0
    dead_peer_s: float = 5.0
    """No ack progress while bytes are un-acked, or no message at all once accepted."""
    answer_s: float = 60.0
    """Between finish and the first token, and between tokens."""
    resume_window_s: float = 30.0


class EdgeSession:
    """One request's session, edge side. ``receive`` and ``tick`` return what to do, in order;
    ``next_send`` gives the payload, behind everything they returned."""

    def __init__(
        self, policy: SendPolicy | None = None, timeouts: EdgeTimeouts | None = None
    ) -> None:
        self._timeouts = timeouts or EdgeTimeouts()
        self._states = StateTracker(TRANSITIONS, EdgeState.IDLE, LOCAL_EVENTS)
        self._sender = PayloadSender(policy or SendPolicy())
        self._parameters: OpenParameters | None = None
        self._deadline_at = 0.0
        self._token_ids: list[int] = []
        self._tokens_on_stream = 0
        self._accept_by = 0.0
        self._heard_at = 0.0
        self._answer_by = 0.0
        self._resume_by: float | None = None

    @property
    def state(self) -> EdgeState:
        """Where the session stands."""
        return self._states.current

    @property
    def is_open(self) -> bool:
        """Whether anything can still happen."""
        return self._states.current not in _ENDED

    @property
    def unsent_bytes(self) -> int:
        """Appended bytes not sent on this stream; 0 means the application limits the rate."""
        return self._sender.unsent_bytes

    @property
    def is_credit_blocked(self) -> bool:
        """Whether payload is ready and the cloud's credit is used up."""
        return self._sender.is_credit_blocked

    @property
    def unacked_bytes(self) -> int:
        """The backlog: sent and not acked."""
        return self._sender.unacked_bytes

    @property
    def acked_bytes(self) -> int:
        """Bytes that the cloud has."""
        return self._sender.acked_bytes

    @property
    def spare_credit_bytes(self) -> int:
        """Credit beyond all that was appended; below 0: so much waits for more."""
        return self._sender.spare_credit_bytes

    @property
    def appended_bytes(self) -> int:
        """Length of the payload so far."""
        return self._sender.appended_bytes

    @property
    def held_bytes(self) -> int:
        """Bytes kept in memory until they are acked; the application bounds it by waiting."""
        return self._sender.held_bytes

    @property
    def earliest_switch_offset(self) -> int:
        """The first append boundary that ``ModeSwitched`` may name: nothing after it was sent."""
        return self._sender.earliest_switch_offset

    def receive(self, event: EdgeEvent, now: float) -> tuple[EdgeAction, ...]:
        """Takes one event.

        Raises:
            LocalProtocolError: an own event that is not possible now; nothing changed.
            RemoteProtocolError: the peer broke the protocol; the session is FAILED.
        """
        try:
            if not self._states.admit(type(event)):
                return ()
            if isinstance(event, EdgePeerEvent):
                return self._peer(event, now)
            return self._local(event, now)
        except RemoteProtocolError:
            self._states.fail(EdgeState.FAILED)
            self._sender.clear()
            raise

    def next_send(self, now: float) -> PayloadSend | None:
        """The next message of the payload; what was asked for must be sent. None: nothing now, ask
        again after the next event."""
        if self._states.current not in _SENDING:
            return None
        message = self._sender.next_send(now)
        if isinstance(message, SendFinish):
            self._answer_by = now + self._timeouts.answer_s
            if self._states.admit(FinishPulled) and self._states.current is EdgeState.STREAMING:
                self._states.enter(EdgeState.ANSWERING)
        return message

    def next_deadline(self) -> float | None:
        """When ``tick`` has something to do; None: only an event can change anything."""
        state = self._states.current
        match state:
            case EdgeState.OPENING:
                return self._accept_by
            case EdgeState.STREAMING:
                return self._dead_at()
            case EdgeState.ANSWERING:
                return min(self._dead_at(), self._answer_due_at())
            case EdgeState.SUSPENDED:
                return self._resume_by
            case EdgeState.RESUMING:
                return min(self._accept_by, self._resume_by or self._accept_by)
            case EdgeState.IDLE | EdgeState.COMPLETE | EdgeState.FAILED | EdgeState.CANCELLED:
                return None
            case _:
                assert_never(state)

    def tick(self, now: float) -> tuple[EdgeAction, ...]:
        """Acts on deadlines that have passed; harmless at any time."""
        deadline = self.next_deadline()
        if deadline is None or now < deadline:
            return ()
        self._states.admit(TimerExpired)
        match self._states.current:
            case EdgeState.OPENING | EdgeState.RESUMING:
                return self._lose(PeerTimeoutError("The cloud did not accept in time."), now)
            case EdgeState.STREAMING:
                return self._lose(PeerTimeoutError("The cloud stopped acknowledging."), now)
            case EdgeState.ANSWERING if now < self._answer_due_at():
                return self._lose(PeerTimeoutError("The cloud went silent."), now)
            case EdgeState.ANSWERING:
                stuck = PeerTimeoutError(
                    f"No answer token for {self._timeouts.answer_s:g} s; the cloud is "
                    "overloaded or stuck. Try again or raise the answer timeout."
                )
                return (SendCancel(), *self._fail(stuck))
            case _:
                return self._fail(
                    PeerUnavailableError(
                        f"The session could not be resumed within "
                        f"{self._timeouts.resume_window_s:g} s; ask again."
                    )
                )

    def _local(self, event: EdgeLocalEvent, now: float) -> tuple[EdgeAction, ...]:
        match event:
            case Start():
                return self._start(event.parameters, now)
            case PayloadAppended():
                self._sender.append(event.data)
                return ()
            case PayloadEnded():
                self._sender.end()
                return ()
            case ModeSwitched():
                self._sender.switch(event)
                return ()
            case ConnectionLost():
                return self._lose(event.error, now)
            case Reconnected():
                self._states.enter(EdgeState.RESUMING)
                return (self._send_open(now),)
            case Cancel():
                return self._cancel()
            case _:
                assert_never(event)

    def _peer(self, event: EdgePeerEvent, now: float) -> tuple[EdgeAction, ...]:
        self._heard_at = now
        match event:
            case Accepted():
                return self._accepted(event, now)
            case CreditGranted():
                self._sender.credit(event.credit_bytes)
                return ()
            case Acked():
                self._sender.acked(event.received_bytes, now)
                return ()
            case TokenReceived():
                return self._token(event, now)
            case AnswerDone():
                return self._done(event)
            case PeerFailed():
                return self._fail(event.error)
            case StreamEnded():  # ignored or illegal in every state; the table never admits it
                return ()
            case _:
                assert_never(event)

    def _start(self, parameters: OpenParameters, now: float) -> tuple[EdgeAction, ...]:
        self._parameters = parameters
        self._deadline_at = now + parameters.deadline_s
        self._sender.expect_round_trip(parameters.round_trip_s)
        self._states.enter(EdgeState.OPENING)
        return (self._send_open(now),)

    def _send_open(self, now: float) -> SendOpen:
        if self._parameters is None:
            raise LocalProtocolError("A session must be started before it is opened.")
        self._accept_by = now + self._timeouts.accept_s
        return SendOpen(replace(self._parameters, deadline_s=self._deadline_at - now))

    def _accepted(self, event: Accepted, now: float) -> tuple[EdgeAction, ...]:
        resumed = self._states.current is EdgeState.RESUMING
        if resumed and event.resume_offset < self._sender.acked_bytes:
            lost = PeerUnavailableError(
                "The cloud has lost this session (it restarted, or the resume window passed); "
                "start a new one.",
                acked_bytes=self._sender.acked_bytes,
                resume_offset=event.resume_offset,
            )
            return (SendCancel(), *self._fail(lost))  # of the session it has just begun
        if resumed:
            self._sender.resume(event.resume_offset, event.credit_bytes)
        elif event.resume_offset != 0:
            raise RemoteProtocolError("A new session must start at offset 0.")
        else:
            self._sender.credit(event.credit_bytes)
            self._sender.count_progress_from(now)
        self._resume_by = None
        self._tokens_on_stream = 0
        self._answer_by = now + self._timeouts.answer_s
        # A cloud that had the finish repeats its answer at once, before ours is sent again.
        finished = self._sender.finished_ever
        self._states.enter(EdgeState.ANSWERING if finished else EdgeState.STREAMING)
        return (SessionAccepted(event.context_state, event.queue_s, resumed, event.share),)

    def _token(self, event: TokenReceived, now: float) -> tuple[EdgeAction, ...]:
        """After a resume the cloud repeats the answer from its start; only new tokens go on."""
        self._answer_by = now + self._timeouts.answer_s
        index = self._tokens_on_stream
        self._tokens_on_stream += 1
        if index == len(self._token_ids):
            self._token_ids.append(event.token.token_id)
            return (DeliverToken(event.token, index),)
        if self._token_ids[index] != event.token.token_id:
            raise RemoteProtocolError(
                f"Token {index} of the resumed answer differs from the one received before; "
                "ask again."
            )
        return ()

    def _done(self, event: AnswerDone) -> tuple[EdgeAction, ...]:
        received = self._tokens_on_stream
        if not event.summary.answer_tokens == received == len(self._token_ids):
            raise RemoteProtocolError(
                f"The answer says {event.summary.answer_tokens} tokens, but {received} arrived."
            )
        self._states.enter(EdgeState.COMPLETE)
        self._sender.clear()
        return (Complete(event.summary),)

    def _lose(self, error: ScoutError, now: float) -> tuple[EdgeAction, ...]:
        """The stream is gone: wait for another while the resume window lasts."""
        if self._timeouts.resume_window_s <= 0.0:
            return self._fail(error)
        if self._resume_by is None:
            self._resume_by = now + self._timeouts.resume_window_s
        if now >= self._resume_by:
            return self._fail(error)
        self._states.enter(EdgeState.SUSPENDED)
        return (Reconnect(self._resume_by, error),)

    def _cancel(self) -> tuple[EdgeAction, ...]:
        """Tells the cloud where a stream stands; else it forgets after the resume window."""
        attached = self._states.current in _ATTACHED
        self._states.enter(EdgeState.CANCELLED)
        self._sender.clear()
        return (SendCancel(),) if attached else ()

    def _fail(self, error: ScoutError) -> tuple[EdgeAction, ...]:
        self._states.enter(EdgeState.FAILED)
        self._sender.clear()
        return (Fail(error),)

    def _answer_due_at(self) -> float:
        """Never before the finish is on its way: a resumed session may have much to repeat."""
        return self._answer_by if self._sender.finish_sent else float("inf")

    def _dead_at(self) -> float:
        progress_at = self._sender.progress_at
        heard_at = self._heard_at if progress_at is None else min(self._heard_at, progress_at)
        return heard_at + self._timeouts.dead_peer_s

"""States of the edge's session and the one table of what may happen in each.

Everything that decides whether an event is allowed is here or is a guard that the README lists;
``edge_session`` has the behaviour.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from scout_core.protocol.events import (
    Accepted,
    Acked,
    AnswerDone,
    Cancel,
    ConnectionLost,
    CreditGranted,
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
from scout_core.protocol.transitions import Transitions


class EdgeState(Enum):
    """Where a session stands, as the edge sees it."""

    IDLE = "idle"
    """Nothing was sent."""
    OPENING = "opening"
    """Open was sent; payload may follow on the initial credit, even to its end."""
    STREAMING = "streaming"
    """The cloud accepted; payload flows."""
    ANSWERING = "answering"
    """Accepted, and finished on this stream or one before, whose last bytes may have to be sent
    again; the answer is awaited or arriving."""
    SUSPENDED = "suspended"
    """The stream is lost; the payload is kept and a new stream awaited."""
    RESUMING = "resuming"
    """Open was sent again; the cloud will say where to continue."""
    COMPLETE = "complete"
    """The answer is complete."""
    FAILED = "failed"
    """An error ended the session."""
    CANCELLED = "cancelled"
    """The application ended the session."""


_S = EdgeState
_IGNORED: Final = ()

_LATE_PEER_EVENTS: Final[dict[type, tuple[EdgeState, ...]]] = {
    Accepted: _IGNORED,
    CreditGranted: _IGNORED,
    Acked: _IGNORED,
    TokenReceived: _IGNORED,
    AnswerDone: _IGNORED,
    StreamEnded: _IGNORED,
}

_ENDED: Final[dict[type, tuple[EdgeState, ...]]] = {
    **_LATE_PEER_EVENTS,
    PeerFailed: _IGNORED,
    ConnectionLost: _IGNORED,
    Reconnected: _IGNORED,
    Cancel: _IGNORED,
}

TRANSITIONS: Final[Transitions[EdgeState]] = {
    _S.IDLE: {
        Start: (_S.OPENING,),
        Cancel: (_S.CANCELLED,),
    },
    _S.OPENING: {
        PayloadAppended: (_S.OPENING,),
        PayloadEnded: (_S.OPENING,),
        FinishPulled: (_S.OPENING,),
        ModeSwitched: (_S.OPENING,),
        Accepted: (_S.STREAMING, _S.ANSWERING),
        ConnectionLost: (_S.SUSPENDED, _S.FAILED),
        TimerExpired: (_S.SUSPENDED, _S.FAILED),
        PeerFailed: (_S.FAILED,),
        Cancel: (_S.CANCELLED,),
    },
    _S.STREAMING: {
        PayloadAppended: (_S.STREAMING,),
        PayloadEnded: (_S.STREAMING,),
        FinishPulled: (_S.ANSWERING,),
        ModeSwitched: (_S.STREAMING,),
        CreditGranted: (_S.STREAMING,),
        Acked: (_S.STREAMING,),
        ConnectionLost: (_S.SUSPENDED, _S.FAILED),
        TimerExpired: (_S.SUSPENDED, _S.FAILED),
        PeerFailed: (_S.FAILED,),
        Cancel: (_S.CANCELLED,),
    },
    _S.ANSWERING: {
        FinishPulled: (_S.ANSWERING,),
        CreditGranted: (_S.ANSWERING,),
        Acked: (_S.ANSWERING,),
        TokenReceived: (_S.ANSWERING,),
        AnswerDone: (_S.COMPLETE,),
        ConnectionLost: (_S.SUSPENDED, _S.FAILED),
        TimerExpired: (_S.SUSPENDED, _S.FAILED),
        PeerFailed: (_S.FAILED,),
        Cancel: (_S.CANCELLED,),
    },
    _S.SUSPENDED: {
        **_LATE_PEER_EVENTS,
        PayloadAppended: (_S.SUSPENDED,),
        PayloadEnded: (_S.SUSPENDED,),
        ModeSwitched: (_S.SUSPENDED,),
        Reconnected: (_S.RESUMING,),
        ConnectionLost: _IGNORED,
        TimerExpired: (_S.FAILED,),
        PeerFailed: (_S.FAILED,),
        Cancel: (_S.CANCELLED,),
    },
    _S.RESUMING: {
        PayloadAppended: (_S.RESUMING,),
        PayloadEnded: (_S.RESUMING,),
        ModeSwitched: (_S.RESUMING,),
        Accepted: (_S.STREAMING, _S.ANSWERING, _S.FAILED),
        ConnectionLost: (_S.SUSPENDED, _S.FAILED),
        TimerExpired: (_S.SUSPENDED, _S.FAILED),
        PeerFailed: (_S.FAILED,),
        Cancel: (_S.CANCELLED,),
    },
    _S.COMPLETE: {
        StreamEnded: _IGNORED,
        ConnectionLost: _IGNORED,
        Cancel: _IGNORED,
    },
    _S.FAILED: _ENDED,
    _S.CANCELLED: _ENDED,
}

LOCAL_EVENTS: Final[frozenset[type]] = frozenset(
    {
        Start,
        PayloadAppended,
        PayloadEnded,
        ModeSwitched,
        ConnectionLost,
        Reconnected,
        Cancel,
        FinishPulled,
        TimerExpired,
    }
)
PEER_EVENTS: Final[frozenset[type]] = frozenset(
    {Accepted, CreditGranted, Acked, TokenReceived, AnswerDone, PeerFailed, StreamEnded}
)

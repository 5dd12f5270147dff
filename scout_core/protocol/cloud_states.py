"""States of the cloud's session and the one table of what may happen in each.

``cloud_session`` has the behaviour.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from scout_core.protocol.events import (
    Abort,
    AcceptDecided,
    AnswerFinished,
    CancelReceived,
    ChunkReceived,
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
from scout_core.protocol.transitions import Transitions


class CloudState(Enum):
    """Where a session stands, as the cloud sees it."""

    IDLE = "idle"
    """The stream stands; Open is awaited."""
    DECIDING = "deciding"
    """The daemon decides; payload on the initial credit is kept, not delivered."""
    RECEIVING = "receiving"
    """Admitted; blocks are delivered as they complete."""
    ANSWERING = "answering"
    """The payload is committed; tokens are sent."""
    SUSPENDED = "suspended"
    """The stream is lost before the commit; what arrived is kept for a while."""
    DETACHED = "detached"
    """The stream is lost after the commit; the answer goes on and is kept."""
    COMPLETE = "complete"
    """The answer is complete and is kept for a while, in case its end was lost."""
    FAILED = "failed"
    """An error ended the session."""
    DISCARDED = "discarded"
    """The edge cancelled it, or nobody came back for it."""


_S = CloudState
_IGNORED: Final = ()

_ENDED: Final[dict[type, tuple[CloudState, ...]]] = {
    ChunkReceived: _IGNORED,
    SwitchReceived: _IGNORED,
    FinishReceived: _IGNORED,
    CancelReceived: _IGNORED,
    RateAllocated: _IGNORED,
    PayloadConsumed: _IGNORED,
    TokenProduced: _IGNORED,
    AnswerFinished: _IGNORED,
    ConnectionLost: _IGNORED,
    StreamEnded: _IGNORED,
    Abort: _IGNORED,
}

TRANSITIONS: Final[Transitions[CloudState]] = {
    _S.IDLE: {
        OpenReceived: (_S.DECIDING,),
        ConnectionLost: (_S.DISCARDED,),
        StreamEnded: (_S.DISCARDED,),
        Abort: (_S.FAILED,),
    },
    _S.DECIDING: {
        ChunkReceived: (_S.DECIDING,),
        SwitchReceived: (_S.DECIDING,),
        FinishReceived: (_S.DECIDING,),
        CancelReceived: (_S.DISCARDED,),
        AcceptDecided: (_S.RECEIVING, _S.ANSWERING),
        ConnectionLost: (_S.DISCARDED,),
        StreamEnded: (_S.DECIDING, _S.DISCARDED),
        Abort: (_S.FAILED,),
    },
    _S.RECEIVING: {
        ChunkReceived: (_S.RECEIVING,),
        SwitchReceived: (_S.RECEIVING,),
        FinishReceived: (_S.ANSWERING,),
        CancelReceived: (_S.DISCARDED,),
        Resumed: (_S.RECEIVING,),
        RateAllocated: (_S.RECEIVING,),
        PayloadConsumed: (_S.RECEIVING,),
        ConnectionLost: (_S.SUSPENDED, _S.DISCARDED),
        StreamEnded: (_S.SUSPENDED, _S.DISCARDED),
        TimerExpired: (_S.RECEIVING, _S.FAILED),
        Abort: (_S.FAILED,),
    },
    _S.ANSWERING: {
        FinishReceived: (_S.ANSWERING,),
        CancelReceived: (_S.DISCARDED,),
        Resumed: (_S.ANSWERING,),
        RateAllocated: _IGNORED,
        PayloadConsumed: _IGNORED,
        TokenProduced: (_S.ANSWERING,),
        AnswerFinished: (_S.COMPLETE,),
        ConnectionLost: (_S.DETACHED, _S.DISCARDED),
        StreamEnded: _IGNORED,
        TimerExpired: (_S.ANSWERING,),
        Abort: (_S.FAILED,),
    },
    _S.SUSPENDED: {
        Resumed: (_S.RECEIVING,),
        RateAllocated: (_S.SUSPENDED,),
        PayloadConsumed: (_S.SUSPENDED,),
        CancelReceived: (_S.DISCARDED,),
        ChunkReceived: _IGNORED,
        SwitchReceived: _IGNORED,
        FinishReceived: _IGNORED,
        ConnectionLost: _IGNORED,
        StreamEnded: _IGNORED,
        TimerExpired: (_S.DISCARDED,),
        Abort: (_S.FAILED,),
    },
    _S.DETACHED: {
        Resumed: (_S.ANSWERING,),
        RateAllocated: _IGNORED,
        PayloadConsumed: _IGNORED,
        CancelReceived: (_S.DISCARDED,),
        TokenProduced: (_S.DETACHED,),
        AnswerFinished: (_S.COMPLETE,),
        FinishReceived: _IGNORED,
        ConnectionLost: _IGNORED,
        StreamEnded: _IGNORED,
        TimerExpired: (_S.DISCARDED,),
        Abort: (_S.FAILED,),
    },
    _S.COMPLETE: {
        FinishReceived: (_S.COMPLETE,),
        Resumed: (_S.COMPLETE,),
        RateAllocated: _IGNORED,
        CancelReceived: (_S.DISCARDED,),
        ConnectionLost: _IGNORED,
        StreamEnded: _IGNORED,
        TimerExpired: (_S.DISCARDED,),
        Abort: (_S.FAILED,),
    },
    _S.FAILED: _ENDED,
    _S.DISCARDED: _ENDED,
}

LOCAL_EVENTS: Final[frozenset[type]] = frozenset(
    {
        AcceptDecided,
        RateAllocated,
        PayloadConsumed,
        TokenProduced,
        AnswerFinished,
        ConnectionLost,
        Abort,
        TimerExpired,
    }
)
PEER_EVENTS: Final[frozenset[type]] = frozenset(
    {
        OpenReceived,
        Resumed,
        ChunkReceived,
        SwitchReceived,
        FinishReceived,
        CancelReceived,
        StreamEnded,
    }
)

"""Every pair of state and event is decided at the edge, and the machine does what is decided.

The grid is written by hand, so that a change of the table shows here: ``+`` handled, ``.`` ignored
because it may come late, ``L`` our own mistake, ``R`` the peer's.
"""

from __future__ import annotations

import pytest
from protocol_examples import BLOCK, EMPTY_ANSWER, PARAMETERS, TOKEN, PumpedEdge

from scout_core.errors import LocalProtocolError, PeerUnavailableError, RemoteProtocolError
from scout_core.modes import Mode
from scout_core.protocol.actions import Fail, SendCancel
from scout_core.protocol.edge_session import EdgeTimeouts
from scout_core.protocol.edge_states import LOCAL_EVENTS, PEER_EVENTS, TRANSITIONS, EdgeState
from scout_core.protocol.events import (
    Accepted,
    Acked,
    AnswerDone,
    Cancel,
    ConnectionLost,
    CreditGranted,
    EdgeEvent,
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
from scout_core.protocol.opening import ContextState

LOST = ConnectionLost(PeerUnavailableError("The link broke."))
ACCEPTED = Accepted(ContextState.ABSENT, 0, 1000, 0.0)

EVENTS: tuple[EdgeEvent, ...] = (
    Start(PARAMETERS),
    PayloadAppended(BLOCK),
    PayloadEnded(),
    ModeSwitched(Mode.SCOUT, 0.5, "deadline_forecast"),
    LOST,
    Reconnected(),
    Cancel(),
    ACCEPTED,
    CreditGranted(1000),
    Acked(0, 0),
    TokenReceived(TOKEN),
    AnswerDone(EMPTY_ANSWER),
    PeerFailed(PeerUnavailableError("Draining.")),
    StreamEnded(),
)

#           Start Appended Ended Switched Lost Reconnected Cancel
#           | Accepted Credit Acked Token Done PeerFailed StreamEnded
GRID = {
    EdgeState.IDLE: "+LLLLL+ RRRRRRR",
    EdgeState.OPENING: "L++++L+ +RRRR+R",
    EdgeState.STREAMING: "L++++L+ R++RR+R",
    EdgeState.ANSWERING: "LLLL+L+ R+++++R",
    EdgeState.SUSPENDED: "L+++.++ .....+.",
    EdgeState.RESUMING: "L++++L+ +RRRR+R",
    EdgeState.COMPLETE: "LLLL.L. RRRRRR.",
    EdgeState.FAILED: "LLLL... .......",
    EdgeState.CANCELLED: "LLLL... .......",
}

PATHS: dict[EdgeState, tuple[EdgeEvent, ...]] = {
    EdgeState.IDLE: (),
    EdgeState.OPENING: (Start(PARAMETERS),),
    EdgeState.STREAMING: (Start(PARAMETERS), ACCEPTED),
    EdgeState.ANSWERING: (Start(PARAMETERS), ACCEPTED, PayloadEnded()),
    EdgeState.SUSPENDED: (Start(PARAMETERS), ACCEPTED, LOST),
    EdgeState.RESUMING: (Start(PARAMETERS), ACCEPTED, LOST, Reconnected()),
    EdgeState.COMPLETE: (Start(PARAMETERS), ACCEPTED, PayloadEnded(), AnswerDone(EMPTY_ANSWER)),
    EdgeState.FAILED: (Start(PARAMETERS), PeerFailed(PeerUnavailableError("Draining."))),
    EdgeState.CANCELLED: (Start(PARAMETERS), Cancel()),
}


def session_in(state: EdgeState) -> PumpedEdge:
    session = PumpedEdge()
    for event in PATHS[state]:
        session.receive(event, 0.0)
    assert session.state is state
    return session


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
@pytest.mark.parametrize("state", list(EdgeState), ids=lambda state: state.name)
def test_every_pair_of_state_and_event_is_decided(state: EdgeState, event: EdgeEvent) -> None:
    session = session_in(state)
    decision = GRID[state].replace(" ", "")[EVENTS.index(event)]
    match decision:
        case "+":
            session.receive(event, 0.1)
            reachable = set(TRANSITIONS[state][type(event)])
            if isinstance(event, PayloadEnded):  # and the stream takes the finish at once
                reachable |= set(TRANSITIONS[state].get(FinishPulled, ()))
            assert session.state in reachable
        case ".":
            assert session.receive(event, 0.1) == ()
            assert session.state is state
        case "L":
            with pytest.raises(LocalProtocolError, match=type(event).__name__):
                session.receive(event, 0.1)
            assert session.state is state
        case _:
            with pytest.raises(RemoteProtocolError, match=type(event).__name__):
                session.receive(event, 0.1)
            assert session.state is EdgeState.FAILED


ATTACHED = (EdgeState.OPENING, EdgeState.STREAMING, EdgeState.ANSWERING, EdgeState.RESUMING)


@pytest.mark.parametrize("state", list(EdgeState), ids=lambda state: state.name)
def test_cancel_is_sent_exactly_where_a_stream_stands(state: EdgeState) -> None:
    session = session_in(state)
    expected = (SendCancel(),) if state in ATTACHED else ()
    assert session.receive(Cancel(), 0.1) == expected
    assert not session.is_open


def test_edge_that_gives_the_answer_up_says_so_to_the_cloud() -> None:
    session = session_in(EdgeState.ANSWERING)
    # Acks keep coming: the path lives, the answer does not.
    while (due := session.next_deadline()) is not None and due < 60.0:
        session.receive(Acked(0, 0), due)
    cancel, fail = session.tick(60.0)
    assert cancel == SendCancel()
    assert isinstance(fail, Fail)


def test_grid_and_table_speak_of_the_same_events() -> None:
    pulled = {FinishPulled, TimerExpired}
    assert {type(event) for event in EVENTS} | pulled == LOCAL_EVENTS | PEER_EVENTS
    assert not LOCAL_EVENTS & PEER_EVENTS
    assert set(TRANSITIONS) == set(GRID) == set(EdgeState)
    assert all(set(row) <= LOCAL_EVENTS | PEER_EVENTS for row in TRANSITIONS.values())


RESUMABLE = EdgeTimeouts()
FINAL = EdgeTimeouts(resume_window_s=0.0)


@pytest.mark.parametrize(
    ("state", "timeouts", "after_s", "expected"),
    [
        (EdgeState.OPENING, RESUMABLE, 5.0, EdgeState.SUSPENDED),
        (EdgeState.OPENING, FINAL, 5.0, EdgeState.FAILED),
        (EdgeState.STREAMING, RESUMABLE, 5.0, EdgeState.SUSPENDED),
        (EdgeState.STREAMING, FINAL, 5.0, EdgeState.FAILED),
        (EdgeState.ANSWERING, RESUMABLE, 5.0, EdgeState.SUSPENDED),
        (EdgeState.ANSWERING, FINAL, 5.0, EdgeState.FAILED),
        (EdgeState.ANSWERING, EdgeTimeouts(answer_s=4.0), 4.0, EdgeState.FAILED),
        (EdgeState.SUSPENDED, RESUMABLE, 30.0, EdgeState.FAILED),
        (EdgeState.RESUMING, RESUMABLE, 5.0, EdgeState.SUSPENDED),
        (EdgeState.RESUMING, EdgeTimeouts(resume_window_s=3.0), 3.0, EdgeState.FAILED),
        (EdgeState.IDLE, RESUMABLE, None, EdgeState.IDLE),
        (EdgeState.COMPLETE, RESUMABLE, None, EdgeState.COMPLETE),
        (EdgeState.FAILED, RESUMABLE, None, EdgeState.FAILED),
        (EdgeState.CANCELLED, RESUMABLE, None, EdgeState.CANCELLED),
    ],
)
def test_every_state_waits_as_long_as_it_says_and_no_longer(
    state: EdgeState, timeouts: EdgeTimeouts, after_s: float | None, expected: EdgeState
) -> None:
    session = PumpedEdge(timeouts=timeouts)
    for event in PATHS[state]:
        session.receive(event, 10.0)
    assert session.state is state
    if after_s is None:
        assert session.next_deadline() is None
        assert session.tick(1e9) == ()
    else:
        assert session.next_deadline() == 10.0 + after_s
        assert session.tick(10.0 + after_s - 0.001) == ()
        assert session.state is state
        assert session.tick(10.0 + after_s) != ()
    assert session.state is expected

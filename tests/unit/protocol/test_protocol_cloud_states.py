"""Every pair of state and event is decided at the cloud, and the machine does what is decided.

The grid is written by hand, so that a change of the table shows here: ``+`` handled, ``.`` ignored
because it may come late, ``L`` our own mistake, ``R`` the peer's.
"""

from __future__ import annotations

import pytest
from protocol_examples import BLOCK, EMPTY_ANSWER, PARAMETERS, TOKEN, chunk, finish

from scout_core.errors import (
    LocalProtocolError,
    OverloadedError,
    PeerTimeoutError,
    PeerUnavailableError,
    RemoteProtocolError,
)
from scout_core.modes import Mode
from scout_core.protocol.actions import CloudAction, Discard, Fail, SendAck
from scout_core.protocol.cloud_session import CloudSession, CloudTimeouts
from scout_core.protocol.cloud_states import LOCAL_EVENTS, PEER_EVENTS, TRANSITIONS, CloudState
from scout_core.protocol.events import (
    Abort,
    AcceptDecided,
    AnswerFinished,
    CancelReceived,
    CloudEvent,
    ConnectionLost,
    OpenReceived,
    PayloadConsumed,
    RateAllocated,
    Resumed,
    StreamEnded,
    SwitchReceived,
    TimerExpired,
    TokenProduced,
)
from scout_core.protocol.opening import ContextState

LOST = ConnectionLost(PeerUnavailableError("The link broke."))
OPEN = OpenReceived(PARAMETERS)
ACCEPT = AcceptDecided(ContextState.ABSENT)
FINISH = finish(b"")
DONE = AnswerFinished(EMPTY_ANSWER)

EVENTS: tuple[CloudEvent, ...] = (
    ACCEPT,
    RateAllocated(1e6),
    PayloadConsumed(0),
    TokenProduced(TOKEN),
    DONE,
    LOST,
    Abort(OverloadedError("Full.")),
    OPEN,
    Resumed(PARAMETERS),
    chunk(0, BLOCK),
    SwitchReceived(Mode.SCOUT, 0.5, 0, "deadline_forecast"),
    FINISH,
    CancelReceived(),
    StreamEnded(),
)

#           Accept Rate Consumed Token Finished Lost Abort
#           | Open Resumed Chunk Switch Finish Cancel StreamEnded
GRID = {
    CloudState.IDLE: "LLLLL++ +RRRRR+",
    CloudState.DECIDING: "+LLLL++ RR+++++",
    CloudState.RECEIVING: "L++LL++ R++++++",
    CloudState.ANSWERING: "L..++++ R+RRR+.",  # the finish is a second one on its stream
    CloudState.SUSPENDED: "L++LL.+ R+...+.",
    CloudState.DETACHED: "L..++.+ R+RR.+.",
    CloudState.COMPLETE: "L.LLL.+ R+RRR+.",
    CloudState.FAILED: "L...... RR.....",
    CloudState.DISCARDED: "L...... RR.....",
}

PATHS: dict[CloudState, tuple[CloudEvent, ...]] = {
    CloudState.IDLE: (),
    CloudState.DECIDING: (OPEN,),
    CloudState.RECEIVING: (OPEN, ACCEPT),
    CloudState.ANSWERING: (OPEN, ACCEPT, FINISH),
    CloudState.SUSPENDED: (OPEN, ACCEPT, LOST),
    CloudState.DETACHED: (OPEN, ACCEPT, FINISH, LOST),
    CloudState.COMPLETE: (OPEN, ACCEPT, FINISH, DONE),
    CloudState.FAILED: (OPEN, Abort(OverloadedError("Full."))),
    CloudState.DISCARDED: (OPEN, LOST),
}


def session_in(state: CloudState, timeouts: CloudTimeouts | None = None) -> CloudSession:
    session = CloudSession(timeouts=timeouts)
    for event in PATHS[state]:
        session.receive(event, 10.0)
    assert session.state is state
    return session


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
@pytest.mark.parametrize("state", list(CloudState), ids=lambda state: state.name)
def test_every_pair_of_state_and_event_is_decided(state: CloudState, event: CloudEvent) -> None:
    session = session_in(state)
    decision = GRID[state].replace(" ", "")[EVENTS.index(event)]
    match decision:
        case "+":
            session.receive(event, 10.1)
            assert session.state in TRANSITIONS[state][type(event)]
        case ".":
            assert session.receive(event, 10.1) == ()
            assert session.state is state
        case "L":
            with pytest.raises(LocalProtocolError, match=type(event).__name__):
                session.receive(event, 10.1)
            assert session.state is state
        case _:
            with pytest.raises(RemoteProtocolError):
                session.receive(event, 10.1)
            assert session.state is CloudState.FAILED


@pytest.mark.parametrize("state", [CloudState.ANSWERING, CloudState.COMPLETE])
def test_finish_is_taken_again_after_a_resume_only(state: CloudState) -> None:
    session = session_in(state)
    session.receive(Resumed(PARAMETERS), 10.1)
    assert session.receive(FINISH, 10.2) == ()
    assert session.state is state
    with pytest.raises(RemoteProtocolError, match="second finish"):
        session.receive(FINISH, 10.3)


@pytest.mark.parametrize(
    "state", [state for state in CloudState if CancelReceived in TRANSITIONS[state]]
)
def test_cancelled_session_is_forgotten_at_once(state: CloudState) -> None:
    session = session_in(state)
    open_before = session.is_open
    assert session.receive(CancelReceived(), 10.1) == ((Discard(),) if open_before else ())
    assert not session.is_open
    assert session.next_deadline(10.1) is None


def test_grid_and_table_speak_of_the_same_events() -> None:
    assert {type(event) for event in EVENTS} | {TimerExpired} == LOCAL_EVENTS | PEER_EVENTS
    assert not LOCAL_EVENTS & PEER_EVENTS
    assert set(TRANSITIONS) == set(GRID) == set(CloudState)
    assert all(set(row) <= LOCAL_EVENTS | PEER_EVENTS for row in TRANSITIONS.values())


@pytest.mark.parametrize(
    ("state", "after_s", "actions", "expected"),
    [
        (CloudState.RECEIVING, 1.5, (SendAck(0, 0),), CloudState.RECEIVING),
        (CloudState.ANSWERING, 1.5, (SendAck(0, 0),), CloudState.ANSWERING),
        (CloudState.SUSPENDED, 30.0, (Discard(),), CloudState.DISCARDED),
        (CloudState.DETACHED, 30.0, (Discard(),), CloudState.DISCARDED),
        (CloudState.COMPLETE, 30.0, (Discard(),), CloudState.DISCARDED),
    ],
)
def test_every_waiting_state_acts_when_it_says(
    state: CloudState, after_s: float, actions: tuple[CloudAction, ...], expected: CloudState
) -> None:
    session = session_in(state)
    at = 10.0 + after_s
    assert session.next_deadline(10.0) == at
    assert session.tick(at - 0.001) == ()
    assert session.tick(at) == actions
    assert session.state is expected


@pytest.mark.parametrize(
    "state", [CloudState.IDLE, CloudState.DECIDING, CloudState.FAILED, CloudState.DISCARDED]
)
def test_other_states_wait_for_an_event(state: CloudState) -> None:
    session = session_in(state)
    assert session.next_deadline(10.0) is None
    assert session.tick(1e9) == ()
    assert session.state is state


def test_edge_that_sends_nothing_is_given_up() -> None:
    session = session_in(CloudState.RECEIVING, CloudTimeouts(idle_s=1.0))
    fail, discard = session.tick(11.0)
    assert isinstance(fail, Fail)
    assert isinstance(fail.error, PeerTimeoutError)
    assert discard == Discard()
    assert session.state is CloudState.FAILED


@pytest.mark.parametrize("state", [CloudState.RECEIVING, CloudState.ANSWERING])
def test_without_a_resume_window_a_lost_stream_discards_the_session(state: CloudState) -> None:
    session = session_in(state, CloudTimeouts(resume_window_s=0.0))
    assert session.receive(LOST, 10.1) == (Discard(),)
    assert session.state is CloudState.DISCARDED

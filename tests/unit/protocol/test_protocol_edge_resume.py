"""What the edge's session does when its stream is lost, and on the next one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from protocol_examples import (
    BLOCK,
    PARAMETERS,
    TOKEN,
    PumpedEdge,
    accepted,
    finish,
    ranges,
    started,
    streaming,
)

from scout_core.errors import PeerUnavailableError, RemoteProtocolError
from scout_core.modes import Mode
from scout_core.protocol.actions import (
    DeliverToken,
    Fail,
    Reconnect,
    SendCancel,
    SendChunk,
    SendFinish,
    SendOpen,
    SendSwitch,
    SessionAccepted,
)
from scout_core.protocol.answer import AnswerToken
from scout_core.protocol.edge_session import EdgeSession, EdgeTimeouts
from scout_core.protocol.edge_states import EdgeState
from scout_core.protocol.events import (
    Acked,
    ConnectionLost,
    ModeSwitched,
    PayloadAppended,
    PayloadEnded,
    Reconnected,
    Start,
    TokenReceived,
)
from scout_core.protocol.opening import ContextState
from scout_core.protocol.payload_sender import (
    SendPolicy,
)

LOST = ConnectionLost(PeerUnavailableError("The link broke."))


def test_resume_continues_after_what_the_cloud_has() -> None:
    session = streaming(300)
    session.receive(PayloadAppended(b"a" * 80), 0.0)
    session.receive(PayloadAppended(b"b" * 20), 0.0)
    session.receive(ModeSwitched(Mode.KV_INT4, 1.0, "deadline_forecast"), 0.0)
    session.receive(PayloadAppended(b"c" * 200), 0.0)
    session.receive(Acked(80, 0), 0.5)
    assert session.receive(LOST, 1.0) == (Reconnect(31.0, LOST.error),)
    session.receive(PayloadAppended(b"x"), 1.5)
    session.receive(PayloadEnded(), 1.5)
    (reopened,) = session.receive(Reconnected(), 1.5)
    assert reopened == SendOpen(replace(PARAMETERS, deadline_s=0.5))
    actions = session.receive(accepted(400, resume_offset=100), 1.6)
    assert actions[0] == SessionAccepted(ContextState.ABSENT, 0.25, resumed=True)
    assert actions[1] == SendSwitch(Mode.KV_INT4, 1.0, 100, "deadline_forecast")
    # The 200 bytes left in one chunk before; now they are cut in another way.
    assert ranges(actions) == [(100, 301)]
    end = finish(b"a" * 80, b"b" * 20, b"c" * 200 + b"x")
    assert actions[-1] == SendFinish(301, end.digest)
    assert session.acked_bytes == 100


def test_resume_inside_a_chunk_is_refused() -> None:
    session = streaming(300)
    session.receive(PayloadAppended(bytes(100)), 0.0)
    session.receive(LOST, 1.0)
    session.receive(Reconnected(), 1.0)
    with pytest.raises(RemoteProtocolError, match="inside the chunk behind 0"):
        session.receive(accepted(400, resume_offset=99), 1.1)
    assert session.state is EdgeState.FAILED


@pytest.mark.parametrize(("resume_offset", "sent_again"), [(90, 1), (100, 1), (110, 0)])
def test_switch_is_sent_again_unless_the_cloud_has_a_byte_it_describes(
    resume_offset: int, sent_again: int
) -> None:
    session = streaming(300)
    session.receive(PayloadAppended(bytes(90)), 0.0)
    session.receive(PayloadAppended(bytes(10)), 0.0)
    session.receive(ModeSwitched(Mode.KV_INT4, 1.0, "deadline_forecast"), 0.0)
    session.receive(PayloadAppended(bytes(10)), 0.0)
    session.receive(PayloadAppended(bytes(190)), 0.0)
    session.receive(LOST, 1.0)
    session.receive(Reconnected(), 1.0)
    actions = session.receive(accepted(400, resume_offset), 1.1)
    assert len([a for a in actions if isinstance(a, SendSwitch)]) == sent_again


def test_cloud_that_had_the_finish_may_answer_before_it_comes_again() -> None:
    session = EdgeSession(SendPolicy())
    session.receive(Start(PARAMETERS), 0.0)
    session.receive(accepted(100), 0.0)
    session.receive(PayloadAppended(BLOCK), 0.0)
    session.receive(PayloadEnded(), 0.0)
    assert isinstance(session.next_send(0.0), SendChunk)
    assert isinstance(session.next_send(0.0), SendFinish)
    session.receive(LOST, 0.2)
    session.receive(Reconnected(), 0.3)
    session.receive(accepted(100, resume_offset=len(BLOCK)), 0.4)
    assert session.receive(TokenReceived(TOKEN), 0.4) == (DeliverToken(TOKEN, 0),)
    assert isinstance(session.next_send(0.4), SendFinish)
    assert session.next_send(0.4) is None


def test_cloud_that_lost_the_session_fails_it_with_advice() -> None:
    session = streaming(300)
    session.receive(PayloadAppended(bytes(100)), 0.0)
    session.receive(Acked(100, 0), 0.5)
    session.receive(LOST, 1.0)
    session.receive(Reconnected(), 1.0)
    cancel, failed = session.receive(accepted(400, resume_offset=0), 1.1)
    assert cancel == SendCancel()
    assert isinstance(failed, Fail)
    assert isinstance(failed.error, PeerUnavailableError)
    assert "start a new one" in failed.error.message
    assert session.state is EdgeState.FAILED


def test_cloud_that_never_heard_of_the_session_gets_it_from_the_start() -> None:
    session = started(initial_credit_bytes=100)
    session.receive(PayloadAppended(bytes(60)), 0.0)
    session.receive(LOST, 1.0)
    session.receive(Reconnected(), 1.0)
    assert ranges(session.receive(accepted(100), 1.1)) == [(0, 60)]
    assert session.state is EdgeState.STREAMING


def test_resumed_answer_is_handed_on_without_repeats() -> None:
    session = streaming(0)
    session.receive(PayloadEnded(), 0.0)
    second = AnswerToken(" the mat", 8)
    assert session.receive(TokenReceived(TOKEN), 0.1) == (DeliverToken(TOKEN, 0),)
    session.receive(LOST, 0.2)
    session.receive(Reconnected(), 0.3)
    resumed = session.receive(accepted(0), 0.4)
    assert isinstance(resumed[-1], SendFinish)
    assert session.receive(TokenReceived(TOKEN), 0.4) == ()
    assert session.receive(TokenReceived(second), 0.4) == (DeliverToken(second, 1),)


def test_resumed_answer_that_differs_is_not_passed_off_as_the_same() -> None:
    session = streaming(0)
    session.receive(PayloadEnded(), 0.0)
    session.receive(TokenReceived(TOKEN), 0.1)
    session.receive(LOST, 0.2)
    session.receive(Reconnected(), 0.3)
    session.receive(accepted(0), 0.4)
    with pytest.raises(RemoteProtocolError, match="differs"):
        session.receive(TokenReceived(AnswerToken("On", 9)), 0.4)


def test_resume_window_is_not_extended_by_attempts_that_fail() -> None:
    session = PumpedEdge(timeouts=EdgeTimeouts(accept_s=5.0, resume_window_s=12.0))
    session.receive(Start(PARAMETERS), 0.0)
    session.receive(LOST, 1.0)
    for at in (2.0, 8.0):
        session.receive(Reconnected(), at)
        (again,) = session.tick(at + 5.0)
        if at < 8.0:
            assert isinstance(again, Reconnect)
            assert again.until_s == 13.0
        else:
            assert isinstance(again, Fail)
    assert session.state is EdgeState.FAILED


def test_second_loss_after_a_resume_has_its_own_window() -> None:
    session = streaming(0)
    session.receive(LOST, 1.0)
    session.receive(Reconnected(), 20.0)
    session.receive(accepted(0), 20.1)
    assert session.receive(LOST, 25.0) == (Reconnect(55.0, LOST.error),)


def test_repeated_acks_keep_an_idle_session_alive_but_not_one_that_makes_no_progress() -> None:
    idle = streaming(1000)
    stuck = streaming(1000)
    stuck.receive(PayloadAppended(BLOCK), 0.0)
    for tenth in range(15, 46, 15):
        idle.receive(Acked(0, 0), tenth / 10)
        stuck.receive(Acked(0, 0), tenth / 10)
    assert idle.next_deadline() == 9.5
    assert stuck.next_deadline() == 5.0

"""What the edge's session sends, keeps and hands on."""

from __future__ import annotations

import pytest
from protocol_examples import (
    BLOCK,
    EMPTY_ANSWER,
    ONE_TOKEN_ANSWER,
    PARAMETERS,
    TOKEN,
    accepted,
    finish,
    ranges,
    started,
    streaming,
)

from scout_core.errors import LocalProtocolError, PeerUnavailableError, RemoteProtocolError
from scout_core.modes import Mode
from scout_core.protocol.actions import (
    Complete,
    SendCancel,
    SendChunk,
    SendFinish,
    SendSwitch,
    SessionAccepted,
)
from scout_core.protocol.checksum import chunk_checksum
from scout_core.protocol.edge_session import EdgeSession
from scout_core.protocol.edge_states import EdgeState
from scout_core.protocol.events import (
    Acked,
    AnswerDone,
    Cancel,
    ConnectionLost,
    CreditGranted,
    ModeSwitched,
    PayloadAppended,
    PayloadEnded,
    Start,
    TokenReceived,
)
from scout_core.protocol.opening import ContextState
from scout_core.protocol.payload_sender import (
    CHUNK_MIN_BYTES,
    PATIENT_CHUNK_BYTES,
    SendPolicy,
    even_cut,
)

KIB = 1024
LOST = ConnectionLost(PeerUnavailableError("The link broke."))


def test_small_request_is_one_flight_on_the_initial_credit() -> None:
    session = started(initial_credit_bytes=1000)
    (sent,) = session.receive(PayloadAppended(BLOCK), 0.0)
    assert sent == SendChunk(0, BLOCK, chunk_checksum(BLOCK))
    end = finish(BLOCK)
    assert session.receive(PayloadEnded(), 0.0) == (SendFinish(end.total_bytes, end.digest),)
    assert session.state is EdgeState.OPENING
    assert session.receive(accepted(1000), 0.1) == (
        SessionAccepted(ContextState.ABSENT, 0.25, resumed=False),
    )
    assert session.state is EdgeState.ANSWERING


def test_empty_payload_is_finished_at_once() -> None:
    session = streaming(0)
    end = finish(b"")
    assert session.receive(PayloadEnded(), 0.0) == (SendFinish(0, end.digest),)


def test_nothing_is_sent_beyond_the_credit() -> None:
    session = streaming(10)
    assert ranges(session.receive(PayloadAppended(bytes(25)), 0.0)) == [(0, 10)]
    assert session.unsent_bytes == 15
    assert session.receive(PayloadEnded(), 0.0) == ()
    assert ranges(session.receive(CreditGranted(12), 0.0)) == [(10, 12)]
    last = session.receive(CreditGranted(100), 0.0)
    assert ranges(last) == [(12, 25)]
    assert isinstance(last[-1], SendFinish)
    assert session.state is EdgeState.ANSWERING


def test_a_block_is_cut_evenly_into_the_fewest_chunks_none_longer_than_the_largest() -> None:
    session = streaming(10_000_000, chunk_bytes=16 * KIB)
    sent = ranges(session.receive(PayloadAppended(bytes(32 * KIB + 9)), 0.0))
    assert [end - start for start, end in sent] == [10_926, 10_926, 10_925]


def test_a_small_rest_of_a_block_shares_its_chunk_with_the_next() -> None:
    session = started(chunk_bytes=16 * KIB)
    for size in (100, 3000, 16 * KIB):
        session.receive(PayloadAppended(bytes(size)), 0.0)
    sent = ranges(session.receive(accepted(10_000_000), 0.0))
    assert [end - start for start, end in sent] == [16 * KIB, 3100]


def test_on_a_fast_link_credit_cuts_no_chunk_short_while_more_is_on_its_way() -> None:
    size = PATIENT_CHUNK_BYTES
    session = streaming(100 * size, chunk_bytes=size)
    session.receive(PayloadAppended(bytes(16 * size)), 0.0)
    session.receive(Acked(0, 0), 0.0)
    session.receive(Acked(16 * size, 0), 0.02)  # 5 ms of it are four chunks
    session.receive(CreditGranted(100 * size), 0.02)
    for _ in range(84):
        session.receive(PayloadAppended(bytes(size)), 0.02)
    assert (session.unsent_bytes, session.is_credit_blocked) == (0, False)
    session.receive(PayloadAppended(bytes(size)), 0.02)
    session.receive(CreditGranted(100 * size + 5), 0.02)
    assert (session.unsent_bytes, session.is_credit_blocked) == (size, True)
    last = session.receive(Acked(100 * size, 0), 0.03)  # nothing is on its way any more
    assert ranges(last) == [(100 * size, 100 * size + 5)]


def test_payload_is_kept_until_it_is_acked() -> None:
    session = streaming(1000)
    for _ in range(3):
        session.receive(PayloadAppended(bytes(100)), 0.0)
    assert (session.held_bytes, session.unacked_bytes) == (300, 300)
    session.receive(Acked(250, 1), 0.1)
    assert (session.held_bytes, session.unacked_bytes, session.acked_bytes) == (100, 50, 250)
    session.receive(Acked(300, 2), 0.2)
    assert (session.held_bytes, session.unacked_bytes) == (0, 0)


def test_chunks_grow_with_the_ack_rate_up_to_the_policy() -> None:
    session = streaming(100 * 1024 * KIB, chunk_bytes=64 * KIB)
    first = ranges(session.receive(PayloadAppended(bytes(1024 * KIB)), 0.0))
    assert {end - start for start, end in first} == {CHUNK_MIN_BYTES}
    session.receive(Acked(0, 0), 0.0)
    session.receive(Acked(1024 * KIB, 0), 0.1)  # 10 MB/s: 5 ms are 52 KB
    grown = ranges(session.receive(PayloadAppended(bytes(1024 * KIB)), 0.1))
    assert grown[0][1] - grown[0][0] == even_cut(1024 * KIB, int(1024 * KIB / 0.1 * 0.005))
    session.receive(Acked(2048 * KIB, 0), 0.13)  # 35 MB/s: 175 KB, above the policy
    capped = ranges(session.receive(PayloadAppended(bytes(128 * KIB)), 0.13))
    assert capped[0][1] - capped[0][0] == 64 * KIB


@pytest.mark.parametrize("event", [Acked(11, 0), CreditGranted(9)])
def test_ack_and_credit_that_cannot_be_fail_the_session(event: Acked | CreditGranted) -> None:
    session = streaming(10)
    session.receive(PayloadAppended(bytes(10)), 0.0)
    with pytest.raises(RemoteProtocolError):
        session.receive(event, 0.1)
    assert session.state is EdgeState.FAILED
    assert session.held_bytes == 0


def test_new_session_must_start_at_zero() -> None:
    with pytest.raises(RemoteProtocolError, match="offset 0"):
        started(initial_credit_bytes=100).receive(accepted(100, resume_offset=5), 0.1)


def test_appending_after_the_end_is_our_mistake() -> None:
    session = streaming(0)
    session.receive(PayloadAppended(BLOCK), 0.0)
    session.receive(PayloadEnded(), 0.0)
    with pytest.raises(LocalProtocolError, match="ended"):
        session.receive(PayloadAppended(BLOCK), 0.0)
    with pytest.raises(LocalProtocolError, match="ended"):
        session.receive(PayloadEnded(), 0.0)
    assert session.state is EdgeState.STREAMING


def test_switch_goes_out_before_the_first_byte_it_describes() -> None:
    session = streaming(150)
    session.receive(PayloadAppended(bytes(100)), 0.0)
    assert session.receive(ModeSwitched(Mode.KV_INT4, 1.0, "deadline_forecast"), 0.0) == ()
    actions = session.receive(PayloadAppended(bytes(100)), 0.0)
    assert actions[0] == SendSwitch(Mode.KV_INT4, 1.0, 100, "deadline_forecast")
    assert ranges(actions) == [(100, 150)]
    assert session.receive(CreditGranted(151), 0.0)[0] == SendChunk(
        150, b"\0", chunk_checksum(b"\0")
    )


def test_switch_withdraws_blocks_that_were_never_sent_and_reopens_the_payload() -> None:
    session = streaming(120)
    for letter in (b"a", b"b", b"c"):
        session.receive(PayloadAppended(letter * 100), 0.0)
    session.receive(PayloadEnded(), 0.0)
    assert session.earliest_switch_offset == 200
    for offset in (100, 250, 301):
        with pytest.raises(LocalProtocolError):
            session.receive(ModeSwitched(Mode.SCOUT, 0.5, "deadline_forecast", offset), 0.0)
    session.receive(ModeSwitched(Mode.KV_INT4, 1.0, "deadline_forecast", 300), 0.0)
    session.receive(ModeSwitched(Mode.SCOUT, 0.5, "deadline_forecast", 200), 0.0)
    session.receive(PayloadAppended(b"d" * 10), 0.0)
    session.receive(PayloadEnded(), 0.0)
    actions = session.receive(CreditGranted(1000), 0.0)
    assert [a for a in actions if isinstance(a, SendSwitch)] == [
        SendSwitch(Mode.SCOUT, 0.5, 200, "deadline_forecast")
    ]
    # 120 bytes were sent on the credit there was; the rest of b then leaves with d.
    end = finish(b"a" * 100, b"b" * 20, b"b" * 80 + b"d" * 10)
    assert actions[-1] == SendFinish(210, end.digest)


def test_switch_at_the_very_end_goes_out_before_finish() -> None:
    session = streaming(100)
    session.receive(PayloadAppended(bytes(100)), 0.0)
    session.receive(ModeSwitched(Mode.SCOUT, 1.0, "deadline_forecast"), 0.0)
    switch, end = session.receive(PayloadEnded(), 0.0)
    assert switch == SendSwitch(Mode.SCOUT, 1.0, 100, "deadline_forecast")
    assert isinstance(end, SendFinish)


def test_finished_payload_cannot_switch_even_after_a_lost_stream() -> None:
    session = started(initial_credit_bytes=100)
    session.receive(PayloadEnded(), 0.0)
    with pytest.raises(LocalProtocolError, match="finished"):
        session.receive(ModeSwitched(Mode.SCOUT, 0.5, "link_recovered"), 0.0)
    session.receive(LOST, 0.0)
    with pytest.raises(LocalProtocolError, match="finished"):
        session.receive(ModeSwitched(Mode.SCOUT, 0.5, "link_recovered"), 0.0)


def test_nothing_waits_in_the_stream_so_a_switch_can_still_withdraw_it() -> None:
    session = EdgeSession(SendPolicy())
    session.receive(Start(PARAMETERS), 0.0)
    session.receive(accepted(1000), 0.0)
    for _ in range(3):
        session.receive(PayloadAppended(bytes(100)), 0.0)
    assert session.earliest_switch_offset == 0
    session.receive(ModeSwitched(Mode.SCOUT, 0.5, "deadline_forecast", 0), 0.0)
    session.receive(PayloadAppended(b"x"), 0.0)
    assert session.next_send(0.0) == SendSwitch(Mode.SCOUT, 0.5, 0, "deadline_forecast")
    assert session.next_send(0.0) == SendChunk(0, b"x", chunk_checksum(b"x"))


def test_answer_must_have_as_many_tokens_as_it_says() -> None:
    session = streaming(0)
    session.receive(PayloadEnded(), 0.0)
    session.receive(TokenReceived(TOKEN), 0.1)
    with pytest.raises(RemoteProtocolError, match="0 tokens, but 1 arrived"):
        session.receive(AnswerDone(EMPTY_ANSWER), 0.2)


def test_complete_answer_ends_the_session() -> None:
    session = streaming(0)
    session.receive(PayloadEnded(), 0.0)
    session.receive(TokenReceived(TOKEN), 0.1)
    assert session.receive(AnswerDone(ONE_TOKEN_ANSWER), 0.2) == (Complete(ONE_TOKEN_ANSWER),)
    assert not session.is_open


def test_progress_is_counted_from_the_accepted_message() -> None:
    session = started(initial_credit_bytes=1000)
    session.receive(PayloadAppended(BLOCK), 0.0)
    session.receive(accepted(1000), 4.0)
    assert session.next_deadline() == 9.0


def test_cancel_frees_the_payload() -> None:
    session = streaming(10)
    session.receive(PayloadAppended(bytes(1000)), 0.0)
    assert session.receive(Cancel(), 0.1) == (SendCancel(),)
    assert session.held_bytes == 0
    assert not session.is_open


@pytest.mark.parametrize(("chunk_bytes", "credit"), [(0, 0), (1024 * KIB + 1, 0), (1, -1)])
def test_send_policy_out_of_range_is_refused(chunk_bytes: int, credit: int) -> None:
    with pytest.raises(LocalProtocolError):
        SendPolicy(chunk_bytes, credit)

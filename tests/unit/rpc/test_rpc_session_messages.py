"""Every action that is sent arrives as the event it means; garbage is a protocol error."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scout.v1 import transport_pb2

from scout_core.errors import RemoteProtocolError, SamplingError
from scout_core.modes import (
    AgentId,
    ContextHash,
    Execution,
    Mode,
    ModelFingerprint,
    PositionUnit,
    SessionId,
)
from scout_core.protocol import actions, events
from scout_core.protocol.answer import AnswerSummary, AnswerToken, FinishReason
from scout_core.protocol.opening import ContextState, Offer, OpenParameters
from scout_core.rpc.session_wire import decode_cloud, decode_edge, encode_cloud, encode_edge
from scout_core.sampling import SamplingOptions

U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
TEXT = st.text(max_size=40)
SECONDS = st.floats(0, 1e6)
SINGLE = st.floats(0, 1e6, width=32)
FRACTION = st.floats(2**-20, 1, width=32)
MODES = st.sampled_from(Mode)
OFFERS = st.builds(Offer, MODES, FRACTION, U64, SINGLE, SINGLE)
SAMPLING = st.builds(
    SamplingOptions,
    temperature=st.floats(0, 2, width=32),
    top_p=FRACTION,
    seed=U32,
    max_tokens=st.integers(1, 2**31),
)
OPEN = st.builds(
    OpenParameters,
    session_id=st.from_regex(r"\A[A-Za-z0-9_-]{1,64}\Z").map(SessionId),
    agent_id=st.text(min_size=1, max_size=64).map(AgentId),
    model_fingerprint=TEXT.map(ModelFingerprint),
    context_hash=st.binary(min_size=32, max_size=32).map(ContextHash),
    context_tokens=U32,
    question=TEXT,
    mode=MODES,
    retention=st.floats(width=32, allow_nan=False),
    deadline_s=st.integers(-600_000, 600_000).map(lambda milliseconds: milliseconds / 1_000),
    execution=st.sampled_from([None, *Execution]),
    sampling=SAMPLING,
    expected_payload_bytes=U64,
    round_trip_s=st.integers(0, 2**32 - 1).map(lambda microseconds: microseconds / 1_000_000),
    offers=st.lists(OFFERS, max_size=4).map(tuple),
    position_unit=st.sampled_from(PositionUnit),
    context_characters=U32,
)
SUMMARY = st.builds(
    AnswerSummary,
    finish_reason=st.sampled_from(FinishReason),
    answer_tokens=U32,
    inject_s=SECONDS,
    prefill_s=SECONDS,
    queue_s=SECONDS,
    decode_s=SECONDS,
    uplink_bytes=U64,
    execution=st.sampled_from([None, *Execution]),
    numerics=TEXT,
    degradation=TEXT,
    context_tokens=U32,
    kept_tokens=U32,
)
PARAMETERS = OpenParameters(
    session_id=SessionId("s"),
    agent_id=AgentId("a"),
    model_fingerprint=ModelFingerprint("f"),
    context_hash=ContextHash(b"h" * 32),
    context_tokens=1,
    question="q",
    mode=Mode.SCOUT,
    retention=1.0,
    deadline_s=1.0,
)


@given(OPEN)
def test_open_arrives_as_it_was_sent(parameters: OpenParameters) -> None:
    received = decode_edge(encode_edge(actions.SendOpen(parameters)))
    assert received == events.OpenReceived(parameters)


def test_an_open_that_names_no_unit_counts_the_clouds_tokens() -> None:
    request = transport_pb2.SessionRequest.FromString(encode_edge(actions.SendOpen(PARAMETERS)))
    request.open.ClearField("position_unit")
    received = decode_edge(request.SerializeToString())
    assert received == events.OpenReceived(PARAMETERS)
    request.open.position_unit = 9  # pyright: ignore[reportAttributeAccessIssue] - of a later version
    with pytest.raises(RemoteProtocolError, match="position unit"):
        decode_edge(request.SerializeToString())


@given(MODES, st.floats(width=32, allow_nan=False), U64, TEXT)
def test_switch_arrives_as_it_was_sent(
    mode: Mode, retention: float, offset: int, cause: str
) -> None:
    received = decode_edge(encode_edge(actions.SendSwitch(mode, retention, offset, cause)))
    assert received == events.SwitchReceived(mode, retention, offset, cause)


@given(U64, st.binary(max_size=16))
def test_finish_arrives_as_it_was_sent(total_bytes: int, digest: bytes) -> None:
    received = decode_edge(encode_edge(actions.SendFinish(total_bytes, digest)))
    assert received == events.FinishReceived(total_bytes, digest)


@given(U64, st.binary(min_size=1, max_size=64), U64)
def test_chunk_arrives_as_it_was_sent(offset: int, data: bytes, checksum: int) -> None:
    received = decode_edge(encode_edge(actions.SendChunk(offset, data, checksum)))
    assert isinstance(received, events.ChunkReceived)
    assert (received.offset, bytes(received.data), received.checksum) == (offset, data, checksum)


def test_cancel_arrives_as_it_was_sent() -> None:
    assert decode_edge(encode_edge(actions.SendCancel())) == events.CancelReceived()


@given(st.sampled_from(ContextState), U64, U64, SINGLE)
def test_accepted_arrives_as_it_was_sent(
    state: ContextState, offset: int, credit: int, queue_s: float
) -> None:
    message = encode_cloud(actions.SendAccepted(state, offset, credit, queue_s))
    assert decode_cloud(message) == (events.Accepted(state, offset, credit, queue_s),)


@given(U64, U64, U64)
def test_credit_and_acks_arrive_as_they_were_sent(credit: int, received: int, at_us: int) -> None:
    credit_message = encode_cloud(actions.SendCredit(credit))
    assert decode_cloud(credit_message) == (events.CreditGranted(credit),)
    ack_message = encode_cloud(actions.SendAck(received, at_us))
    assert decode_cloud(ack_message) == (events.Acked(received, at_us),)


@given(TEXT, U32)
def test_token_arrives_as_it_was_sent(text: str, token_id: int) -> None:
    token = AnswerToken(text, token_id)
    assert decode_cloud(encode_cloud(actions.SendToken(token))) == (events.TokenReceived(token),)


@given(SUMMARY)
def test_done_arrives_as_it_was_sent(summary: AnswerSummary) -> None:
    assert decode_cloud(encode_cloud(actions.SendDone(summary))) == (events.AnswerDone(summary),)


@given(st.binary(max_size=64))
def test_any_bytes_are_an_event_or_a_protocol_error(data: bytes) -> None:
    for decode in (decode_edge, decode_cloud):
        try:
            decode(data)
        except (RemoteProtocolError, SamplingError):
            continue


@pytest.mark.parametrize("decode", [decode_edge, decode_cloud])
def test_empty_message_is_refused(decode: object) -> None:
    assert callable(decode)
    with pytest.raises(RemoteProtocolError, match="same version"):
        decode(b"")


@pytest.mark.parametrize("session_id", ["", "a b", "x" * 65, "ü", "a\n"])
def test_session_id_that_is_none_is_refused(session_id: str) -> None:
    bad = replace(PARAMETERS, session_id=SessionId(session_id))
    with pytest.raises(RemoteProtocolError, match="session_id"):
        decode_edge(encode_edge(actions.SendOpen(bad)))


@pytest.mark.parametrize("agent_id", ["", "x" * 65])
def test_agent_id_that_is_none_is_refused(agent_id: str) -> None:
    bad = replace(PARAMETERS, agent_id=AgentId(agent_id))
    with pytest.raises(RemoteProtocolError, match="agent_id"):
        decode_edge(encode_edge(actions.SendOpen(bad)))


@pytest.mark.parametrize("mode", [0, 1, 99])
def test_mode_that_is_no_transport_mode_is_refused(mode: int) -> None:
    request = transport_pb2.SessionRequest()
    request.ParseFromString(encode_edge(actions.SendOpen(PARAMETERS)))
    request.open.mode = mode  # pyright: ignore[reportAttributeAccessIssue] - what a peer may send
    with pytest.raises(RemoteProtocolError, match="one of the five"):
        decode_edge(request.SerializeToString())

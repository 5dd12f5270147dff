"""A long question crosses in parts, and neither end's machine learns of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scout.v1 import transport_pb2

from scout_core.errors import LocalProtocolError, RemoteProtocolError
from scout_core.modes import AgentId, ContextHash, Mode, ModelFingerprint, SessionId
from scout_core.protocol import actions, events
from scout_core.protocol.opening import Offer, OpenParameters
from scout_core.rpc.open_parts import MAX_QUESTION_BYTES, OpenAssembly, cut_text, encode_open
from scout_core.rpc.options import LEAST_MESSAGE_BYTES
from scout_core.rpc.session_wire import decode_edge, encode_edge

PARAMETERS = OpenParameters(
    session_id=SessionId("s" * 64),
    agent_id=AgentId("a" * 64),
    model_fingerprint=ModelFingerprint("f" * 64),
    context_hash=ContextHash(b"h" * 32),
    context_tokens=2**32 - 1,
    question="who built the lighthouse?",
    mode=Mode.SCOUT,
    retention=1.0,
    deadline_s=1.0,
    offers=(Offer(Mode.KV_SELECT, 0.25, 2**60, 0.5, 0.125),) * 16,
)


def asked(question: str) -> OpenParameters:
    return replace(PARAMETERS, question=question)


def part(text: str) -> bytes:
    request = transport_pb2.SessionRequest(question_part=transport_pb2.QuestionPart(text=text))
    return request.SerializeToString()


def opened(question: str, question_bytes: int) -> bytes:
    request = transport_pb2.SessionRequest.FromString(encode_edge(actions.SendOpen(PARAMETERS)))
    request.open.question, request.open.question_bytes = question, question_bytes
    return request.SerializeToString()


@given(st.text(st.characters(codec="utf-8"), min_size=1), st.integers(4, 9), st.integers(4, 9))
def test_pieces_are_whole_characters_and_fit(text: str, first_bytes: int, next_bytes: int) -> None:
    first, *others = cut_text(text, first_bytes, next_bytes)
    assert "".join((first, *others)) == text
    assert 0 < len(first.encode()) <= first_bytes
    assert all(0 < len(piece.encode()) <= next_bytes for piece in others)


@pytest.mark.parametrize("character", ["a", "é", "🏮"])
@pytest.mark.parametrize("characters", [1, 4_000, 5_000, 16_384])
def test_a_question_of_any_length_arrives_in_messages_of_the_least_size(
    character: str, characters: int
) -> None:
    parameters, assembly = asked(character * characters), OpenAssembly()
    messages = encode_open(parameters, LEAST_MESSAGE_BYTES)
    assert max(map(len, messages)) <= LEAST_MESSAGE_BYTES
    received = [assembly.take(message) for message in messages]
    assert received[-1] == events.OpenReceived(parameters)
    assert not any(received[:-1])
    assert assembly.received_bytes == sum(map(len, messages))


def test_a_question_that_fits_is_sent_as_it_always_was() -> None:
    messages = encode_open(PARAMETERS, LEAST_MESSAGE_BYTES)
    assert messages == (encode_edge(actions.SendOpen(PARAMETERS)),)


def test_an_open_that_does_not_fit_without_its_question_is_not_sent() -> None:
    crowded = replace(PARAMETERS, offers=PARAMETERS.offers * 100)
    with pytest.raises(LocalProtocolError, match="offers"):
        encode_open(crowded, LEAST_MESSAGE_BYTES)


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        ((part("a"),), "first session message"),
        ((encode_edge(actions.SendCancel()),), "first session message"),
        ((opened("a", 3), encode_edge(actions.SendCancel())), "2 bytes of the question"),
        ((opened("a", 3), part("")), "2 bytes of the question"),
        ((opened("a", 3), part("bcd")), "longer than its open says"),
        ((opened("abcd", 3),), "longer than its open says"),
        ((opened("a", MAX_QUESTION_BYTES + 1),), "at most"),
    ],
)
def test_what_does_not_make_up_an_open_is_refused(
    messages: tuple[bytes, ...], complaint: str
) -> None:
    assembly = OpenAssembly()
    *before, last = messages
    for message in before:
        assert assembly.take(message) is None
    with pytest.raises(RemoteProtocolError, match=complaint):
        assembly.take(last)


def test_a_part_behind_a_whole_question_is_an_error() -> None:
    with pytest.raises(RemoteProtocolError, match="without an open"):
        decode_edge(part("more"))

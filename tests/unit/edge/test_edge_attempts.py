"""Which failures earn a second session, and how long a first token is waited for."""

from __future__ import annotations

import pytest

from edge_agent.attempts import SILENCE_S, Attempts, Patience, is_lost_session
from edge_agent.planning import Question
from scout_core.daemon.contexts import StoredContext
from scout_core.errors import (
    PeerTimeoutError,
    PeerUnavailableError,
    ScoutError,
    UnknownContextError,
)
from scout_core.modes import ContextHash, Mode
from scout_core.rpc.requests import ContextReference, GenerateParameters
from scout_core.rpc.transfer_watch import SessionMeasurements
from scout_core.sampling import SamplingOptions

LOST = PeerUnavailableError("lost; start a new one.", acked_bytes=900, resume_offset=0)
MEASURED = SessionMeasurements(uplink_bytes=1_000, downlink_bytes=50)


def attempts(mode: Mode | None = None) -> Attempts:
    parameters = GenerateParameters(
        context=ContextReference(text="a"),
        question="b?",
        deadline_s=2.0,
        sampling=SamplingOptions(),
        mode=mode,
        retention=None,
        execution=None,
        model="",
    )
    key = ContextHash(bytes(32))
    return Attempts(Question(parameters, key, StoredContext((1, 2), "a"), 2.0, 100.0))


def test_a_lost_session_is_followed_by_one_from_the_tokens_and_both_are_accounted() -> None:
    made = attempts()
    again = made.again(LOST, MEASURED, 1_200)  # made; the cloud had acked 900
    assert again.parameters.mode is Mode.SCOUT
    assert again.parameters.retention == 1.0
    assert (made.uplink_bytes, made.downlink_bytes, made.payload_bytes) == (1_000, 50, 900)
    assert made.degradation == [
        "the cloud restarted and lost this session: asked again from the tokens (scout, "
        "retention 1); 900 payload bytes were lost"
    ]


def test_a_session_is_lost_once_and_not_again_and_again() -> None:
    made = attempts()
    made.again(LOST, MEASURED, 900)
    with pytest.raises(PeerUnavailableError):
        made.again(LOST, MEASURED, 900)


def test_a_forced_mode_is_not_replaced_after_a_loss() -> None:
    with pytest.raises(PeerUnavailableError):
        attempts(Mode.KV_INT8).again(LOST, MEASURED, 900)


@pytest.mark.parametrize("error", [LOST, UnknownContextError("unknown")])
def test_an_answer_that_has_begun_is_not_begun_again(error: ScoutError) -> None:
    made = attempts()
    made.delivered_tokens = 3
    with pytest.raises(type(error)) as caught:
        made.again(error, MEASURED, 900)
    assert caught.value.details["delivered_tokens"] == "3"


def test_a_wrong_belief_is_corrected_once_in_the_mode_that_was_asked_for() -> None:
    made = attempts(Mode.KV_SELECT)
    unknown = UnknownContextError("unknown")
    assert made.again(unknown, MEASURED, 0) is made.question
    assert made.degradation == []
    with pytest.raises(UnknownContextError):
        made.again(unknown, MEASURED, 0)


def test_a_context_lost_during_the_request_is_told() -> None:
    made = attempts()
    made.again(UnknownContextError("unknown"), SessionMeasurements(resumes=1), 0)
    assert "lost the context" in made.degradation[0]


def test_only_a_cloud_that_answers_can_have_lost_a_session() -> None:
    assert is_lost_session(LOST)
    assert not is_lost_session(PeerUnavailableError("The call failed.", grpc_code="UNAVAILABLE"))
    assert not is_lost_session(PeerTimeoutError("silent", resume_offset=0))
    with pytest.raises(PeerUnavailableError):
        attempts().again(PeerUnavailableError("The call failed."), MEASURED, 0)


def test_patience_ends_after_deadline_and_grace_where_the_cloud_is_silent() -> None:
    patience = Patience(due_s=102.0, grace_s=1.0)
    assert patience.ends_at(heard_s=100.1) == 103.0


def test_patience_lasts_while_the_cloud_is_heard() -> None:
    patience = Patience(due_s=102.0, grace_s=1.0)
    assert patience.ends_at(heard_s=150.0) == 150.0 + SILENCE_S


def test_an_overdue_request_says_how_late_and_how_silent_it_is() -> None:
    error = Patience(due_s=102.0, grace_s=1.0).overdue(heard_s=100.5, now=103.0)
    assert error.details == {"overdue_s": "1.0", "silent_s": "2.5"}
    assert "Ask again" in error.message

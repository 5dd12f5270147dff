"""What an application sends is checked field by field; what is left out is the daemon's choice."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st
from scout.v1 import inference_pb2, types_pb2

from scout_core.errors import DeadlineError, EmptyInputError, RequestError, RetentionError
from scout_core.modes import Execution, Mode
from scout_core.rpc.messages import EXECUTION_TO_WIRE, MODE_TO_WIRE
from scout_core.rpc.requests import MAX_DEADLINE_S, validate_context_text, validate_generate
from scout_core.sampling import DEFAULT_MAX_TOKENS


def request(**fields: Any) -> inference_pb2.GenerateRequest:
    values: dict[str, Any] = {"context_text": "c", "question": "q"}
    return inference_pb2.GenerateRequest(**(values | fields))


def test_bare_request_leaves_every_choice_to_the_daemon() -> None:
    parameters = validate_generate(request())
    assert parameters.context.text == "c"
    assert parameters.context.context_hash is None
    assert parameters.deadline_s is parameters.mode is parameters.retention is None
    assert parameters.execution is None
    assert parameters.sampling.greedy
    assert parameters.sampling.max_tokens == DEFAULT_MAX_TOKENS
    assert parameters.sampling.top_p == 1.0


@pytest.mark.parametrize("mode", list(Mode))
def test_every_mode_can_be_forced(mode: Mode) -> None:
    assert validate_generate(request(mode=MODE_TO_WIRE[mode])).mode is mode


@pytest.mark.parametrize("execution", list(Execution))
def test_every_execution_can_be_forced(execution: Execution) -> None:
    got = validate_generate(request(execution=EXECUTION_TO_WIRE[execution]))
    assert got.execution is execution


@pytest.mark.parametrize("mode", [types_pb2.MODE_UNSPECIFIED, types_pb2.MODE_AUTO])
def test_auto_is_no_mode(mode: Any) -> None:
    assert validate_generate(request(mode=mode)).mode is None


@given(st.floats(allow_nan=True, allow_infinity=True, width=32))
def test_retention_is_in_range_or_refused(retention: float) -> None:
    if retention == 0.0:
        assert validate_generate(request(retention=retention)).retention is None
    elif 0.0 < retention <= 1.0:
        assert validate_generate(request(retention=retention)).retention == retention
    else:
        with pytest.raises(RetentionError):
            validate_generate(request(retention=retention))


@given(
    st.integers(min_value=-(2**40), max_value=2**40),
    st.integers(min_value=-999_999_999, max_value=999_999_999),
)
def test_deadline_is_in_range_or_refused(seconds: int, nanos: int) -> None:
    message = request(deadline=Duration(seconds=seconds, nanos=nanos))
    deadline_s = seconds + nanos / 1e9
    if 0.0 < deadline_s <= MAX_DEADLINE_S:
        assert validate_generate(message).deadline_s == deadline_s
    else:
        with pytest.raises(DeadlineError):
            validate_generate(message)


@pytest.mark.parametrize("text", ["", " ", "\n\t", "\u2003"])
def test_white_space_is_no_context_and_no_question(text: str) -> None:
    with pytest.raises(EmptyInputError):
        validate_context_text(text)
    with pytest.raises(EmptyInputError):
        validate_generate(request(question=text))


def test_context_may_be_named_by_its_hash() -> None:
    message = inference_pb2.GenerateRequest(context_hash=b"h" * 32, question="q")
    assert validate_generate(message).context.context_hash == b"h" * 32


@pytest.mark.parametrize("size", [0, 31, 33])
def test_hash_of_another_length_is_refused(size: int) -> None:
    message = inference_pb2.GenerateRequest(context_hash=b"h" * size, question="q")
    with pytest.raises(RequestError, match="32 bytes"):
        validate_generate(message)


def test_model_is_passed_on() -> None:
    assert validate_generate(request(model="m")).model == "m"

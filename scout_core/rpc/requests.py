"""Validation of what applications send: GenerateRequest and PutContextRequest.

Both daemons call this first, so the same mistake gets the same sentence from either. Nothing here
depends on a model: lengths in tokens are checked where the tokenizer is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from scout.v1 import inference_pb2, types_pb2

from scout_core.errors import DeadlineError, EmptyInputError, RequestError, RetentionError
from scout_core.modes import ContextHash, Execution, Mode
from scout_core.rpc.messages import EXECUTION_FROM_WIRE, MODE_FROM_WIRE
from scout_core.sampling import DEFAULT_MAX_TOKENS, SamplingOptions

MAX_DEADLINE_S: Final = 600.0
MAX_QUESTION_CHARACTERS: Final = 16_384
CONTEXT_HASH_BYTES: Final = 32
AUTO_MODES: Final = frozenset({types_pb2.MODE_UNSPECIFIED, types_pb2.MODE_AUTO})


@dataclass(frozen=True, slots=True)
class ContextReference:
    """A context by its text or by the hash of an earlier upload; exactly one is set."""

    text: str | None = None
    context_hash: ContextHash | None = None


@dataclass(frozen=True, slots=True)
class GenerateParameters:
    """One validated question. None means: the daemon decides."""

    context: ContextReference
    question: str
    deadline_s: float | None
    sampling: SamplingOptions
    mode: Mode | None
    retention: float | None
    execution: Execution | None
    model: str


def validate_generate(request: inference_pb2.GenerateRequest) -> GenerateParameters:
    """Raises the RequestError that says what to correct, or returns the parameters."""
    return GenerateParameters(
        context=_context(request),
        question=_question(request.question),
        deadline_s=_deadline(request),
        sampling=_sampling(request.sampling),
        mode=_mode(request.mode),
        retention=_retention(request.retention),
        execution=_execution(request.execution),
        model=request.model,
    )


def validate_context_text(text: str) -> str:
    """The text, if there is any."""
    if not text.strip():
        raise EmptyInputError("The context is empty; send the text the question is about.")
    return text


def _context(request: inference_pb2.GenerateRequest) -> ContextReference:
    match request.WhichOneof("context"):
        case "context_text":
            return ContextReference(text=validate_context_text(request.context_text))
        case "context_hash":
            if len(request.context_hash) != CONTEXT_HASH_BYTES:
                raise RequestError(
                    f"context_hash must have {CONTEXT_HASH_BYTES} bytes, got "
                    f"{len(request.context_hash)}; use the hash that PutContext returned."
                )
            return ContextReference(context_hash=ContextHash(request.context_hash))
        case _:
            raise EmptyInputError("Set context_text, or context_hash from an earlier PutContext.")


def _question(question: str) -> str:
    if not question.strip():
        raise EmptyInputError("The question is empty; ask something about the context.")
    if len(question) > MAX_QUESTION_CHARACTERS:
        raise RequestError(
            f"The question has {len(question)} characters, at most {MAX_QUESTION_CHARACTERS} are "
            "allowed; move long material into the context."
        )
    return question


def _deadline(request: inference_pb2.GenerateRequest) -> float | None:
    if not request.HasField("deadline"):
        return None
    deadline_s = request.deadline.seconds + request.deadline.nanos / 1e9
    if not 0.0 < deadline_s <= MAX_DEADLINE_S:
        raise DeadlineError(
            f"The deadline must be in (0, {MAX_DEADLINE_S:g}] seconds, got {deadline_s:g}."
        )
    return deadline_s


def _sampling(sampling: types_pb2.Sampling) -> SamplingOptions:
    return SamplingOptions(
        temperature=sampling.temperature,
        top_p=sampling.top_p or 1.0,
        seed=sampling.seed,
        max_tokens=sampling.max_tokens or DEFAULT_MAX_TOKENS,
    )


def _mode(value: int) -> Mode | None:
    if value in AUTO_MODES:
        return None
    mode = MODE_FROM_WIRE.get(value)
    if mode is None:
        raise RequestError(f"Mode {value} is unknown; use AUTO or one of the five modes.")
    return mode


def _retention(retention: float) -> float | None:
    if retention == 0.0:
        return None
    if not 0.0 < retention <= 1.0:
        raise RetentionError(f"Retention must be in (0, 1], got {retention:g}.")
    return retention


def _execution(value: int) -> Execution | None:
    if value not in EXECUTION_FROM_WIRE:
        raise RequestError(f"Execution {value} is unknown; leave it unset or use EVICT or SPARSE.")
    return EXECUTION_FROM_WIRE[value]

"""What comes back: answer tokens and the summary that closes them.

This module owns the fields of ``scout.v1.AnswerToken`` and ``scout.v1.Done`` as plain values.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from scout_core.modes import Execution


class FinishReason(Enum):
    """Why decoding ended."""

    END_OF_TEXT = "end_of_text"
    MAX_TOKENS = "max_tokens"


@dataclass(frozen=True, slots=True)
class AnswerToken:
    """One decoded token; ``text`` may be empty while a character is incomplete."""

    text: str
    token_id: int


@dataclass(frozen=True, slots=True)
class AnswerSummary:
    """The closing message; ``answer_tokens`` equals the number of token messages before it."""

    finish_reason: FinishReason
    answer_tokens: int
    inject_s: float = 0.0
    prefill_s: float = 0.0
    queue_s: float = 0.0
    decode_s: float = 0.0
    uplink_bytes: int = 0
    execution: Execution | None = None
    numerics: str = ""
    degradation: str = ""
    context_tokens: int = 0
    """Tokens of the context, as the cloud counts them."""
    kept_tokens: int = 0
    """Those of them that the question could attend to."""

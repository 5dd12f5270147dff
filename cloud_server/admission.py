"""Whether a session may start: the request makes sense for this model and fits the budgets.

Pure decisions; nothing is allocated before they pass.
"""

from __future__ import annotations

from cloud_server.host import ModelHost
from cloud_server.settings import CloudSettings
from scout_core.codec.spans import MAX_CHARACTERS
from scout_core.errors import (
    ContextTooLongError,
    DeadlineError,
    EmptyInputError,
    FingerprintMismatchError,
    ModeUnavailableError,
    PayloadError,
    RetentionError,
    SamplingError,
)
from scout_core.modes import PositionUnit
from scout_core.protocol.opening import OpenParameters

MAX_DEADLINE_S = 600.0
MOST_TOKENS_PER_CHARACTER = 4
"""Byte fallback makes as many of a character as UTF-8 has bytes."""
FRAMING_BYTES = 64 * 1024
"""Room for block headers beside the bodies; a block per position would be far below it."""


def check_open(parameters: OpenParameters, host: ModelHost, settings: CloudSettings) -> None:
    """Raises the error that says why this session cannot be served here."""
    engine = host.engine
    if parameters.model_fingerprint != engine.fingerprint:
        raise FingerprintMismatchError(
            f"This server hosts {engine.name} ({engine.fingerprint[:12]}), the session expects "
            f"{parameters.model_fingerprint[:12] or 'no fingerprint'}; attach again and use the "
            "model it names.",
            expected=engine.fingerprint,
            got=parameters.model_fingerprint,
        )
    if not parameters.question.strip():
        raise EmptyInputError("The question is empty; ask something about the context.")
    if parameters.context_tokens < 1:
        raise EmptyInputError("The context is empty; send the text the question is about.")
    if parameters.position_unit is PositionUnit.CHARACTERS:
        _check_characters(parameters)
    elif parameters.context_tokens > engine.context_limit_tokens:
        raise ContextTooLongError(
            f"The context has {parameters.context_tokens} tokens; 1 to "
            f"{engine.context_limit_tokens} are accepted. Shorten it or raise "
            "context_limit_tokens.",
            context_tokens=parameters.context_tokens,
            limit_tokens=engine.context_limit_tokens,
        )
    if not 0.0 < parameters.retention <= 1.0:
        raise RetentionError(f"Retention must be in (0, 1], got {parameters.retention:g}.")
    if not -MAX_DEADLINE_S <= parameters.deadline_s <= MAX_DEADLINE_S:
        raise DeadlineError(
            f"The deadline must be within {MAX_DEADLINE_S:g} s, got {parameters.deadline_s:g} s."
        )
    if parameters.sampling.max_tokens > settings.max_answer_tokens:
        raise SamplingError(
            f"max_tokens is {parameters.sampling.max_tokens}, this server allows "
            f"{settings.max_answer_tokens}."
        )


def _check_characters(parameters: OpenParameters) -> None:
    """An edge without this server's tokenizer: how many tokens there are, the text will tell."""
    modes = {parameters.mode, *(offer.mode for offer in parameters.offers)}
    if any(mode.carries_kv for mode in modes):
        raise ModeUnavailableError(
            "A session that counts characters has no KV of this server's model; use mode scout.",
            mode=parameters.mode.value,
        )
    if not 1 <= parameters.context_characters <= MAX_CHARACTERS:
        raise ContextTooLongError(
            f"The context has {parameters.context_characters} characters; 1 to {MAX_CHARACTERS} "
            "are accepted. Shorten it.",
            context_characters=parameters.context_characters,
            limit_characters=MAX_CHARACTERS,
        )
    if parameters.context_tokens > parameters.context_characters * MOST_TOKENS_PER_CHARACTER:
        raise PayloadError(
            f"{parameters.context_characters} characters are not {parameters.context_tokens} "
            "tokens; send the scout's own count as the estimate.",
        )


def payload_limit_bytes(
    parameters: OpenParameters, host: ModelHost, *, any_offer: bool = False
) -> int:
    """The most payload this session can need, whatever it switches to: reserved at admission.

    ``any_offer``: it may be asked to send any of its offers, not only the mode it opened with.
    """
    engine = host.engine
    if parameters.position_unit is PositionUnit.CHARACTERS:
        # UTF-8 takes four bytes a character at most, ranges a byte a character.
        return parameters.context_characters * 5 + FRAMING_BYTES
    tokens_bytes = parameters.context_tokens * 4
    offers_kv = any_offer and any(offer.mode.carries_kv for offer in parameters.offers)
    if not (parameters.mode.carries_kv or offers_kv):
        return tokens_bytes + FRAMING_BYTES
    positions = parameters.context_tokens + len(engine.prompt.head_tokens)
    # The most that any codec needs is raw bf16.
    return engine.geometry.bf16_bytes(positions) + tokens_bytes + FRAMING_BYTES

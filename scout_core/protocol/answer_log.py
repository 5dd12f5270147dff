"""The answer as far as it was given: what is repeated on another stream, from the first token."""

from __future__ import annotations

from scout_core.errors import LocalProtocolError
from scout_core.protocol.actions import SendDone, SendToken
from scout_core.protocol.answer import AnswerSummary, AnswerToken


class AnswerLog:
    """Tokens, and in the end the summary."""

    def __init__(self) -> None:
        self._tokens: list[AnswerToken] = []
        self._summary: AnswerSummary | None = None

    def add(self, token: AnswerToken) -> SendToken:
        """The next token, to be sent."""
        self._tokens.append(token)
        return SendToken(token)

    def finish(self, summary: AnswerSummary) -> SendDone:
        """The summary, to be sent.

        Raises:
            LocalProtocolError: it counts other tokens than there are.
        """
        if summary.answer_tokens != len(self._tokens):
            raise LocalProtocolError(
                f"The summary counts {summary.answer_tokens} answer tokens, but "
                f"{len(self._tokens)} were produced."
            )
        self._summary = summary
        return SendDone(summary)

    def repeated(self) -> tuple[SendToken | SendDone, ...]:
        """All that was sent, once more."""
        tokens = tuple(SendToken(token) for token in self._tokens)
        return tokens if self._summary is None else (*tokens, SendDone(self._summary))

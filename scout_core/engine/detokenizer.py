"""Token ids to text, as they arrive, never showing half a character."""

from __future__ import annotations

from tokenizers import Tokenizer

REPLACEMENT = "\ufffd"


class Detokenizer:
    """Turns a growing list of token ids into text pieces whose concatenation is the whole text.

    A byte-level token may end inside a UTF-8 character; such a tail is held back until the
    character is complete, and dropped if it never is. Each piece is decoded together with the
    piece before it, because some decoders treat the first token of a text differently.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._before: list[int] = []
        self._pending: list[int] = []
        self._shown = 0

    def push(self, token_id: int) -> str:
        """The text that this token completes; may be empty."""
        self._pending.append(token_id)
        lead = len(self._decode(self._before))
        text = self._decode(self._before + self._pending)[lead:]
        complete = text.rstrip(REPLACEMENT)
        piece = complete[self._shown :]
        self._shown += len(piece)
        if complete == text and text:
            self._before, self._pending, self._shown = self._pending, [], 0
        return piece

    def _decode(self, token_ids: list[int]) -> str:
        return self._tokenizer.decode(token_ids, skip_special_tokens=True)

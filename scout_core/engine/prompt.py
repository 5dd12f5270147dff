"""The prompt in three segments: head (before the context), context, tail (question and answer cue).

The segments are tokenised apart and joined, so that a context's tokens depend on nothing else and
can be stored, sent and hashed by themselves. The chat template's own text may contain special
tokens; context and question are untrusted and never produce one: ``<|im_end|>`` inside a document
stays plain characters, so that a document cannot end the user's turn.
"""

from __future__ import annotations

from typing import Any, Final

from jinja2 import TemplateError
from tokenizers import Encoding, Tokenizer

from scout_core.errors import EmptyInputError, UnsupportedModelError

PASSAGE_HEADING: Final = "Passage:\n"
QUESTION_HEADING: Final = "\n\nQuestion: "
INSTRUCTION: Final = "\nAnswer with a short phrase from the passage."
PLAIN_ANSWER_CUE: Final = "\nAnswer:"
"""Ends the prompt of a model that has no chat template."""
PLACE: Final = "SCOUTPLACEHOLDER"
TEMPLATE_OPTIONS: Final = {
    # Hybrid reasoning models (Qwen3) answer at once: the first token is what the deadline is for.
    "enable_thinking": False,
    # Llama 3 templates print today's date unless told one: two hosts must render the same prompt.
    "date_string": "26 Jul 2024",
}


class PromptTemplate:
    """Tokenises prompts for one model. Built once from its tokenizer; holds private copies.

    Args:
        backend: the model's tokenizer.
        before: the template's text before the user's message.
        after: the template's text after it, up to where the answer starts.
        start_ids: token ids that open every sequence and are no text of the template.
    """

    def __init__(
        self, backend: Tokenizer, before: str, after: str, start_ids: tuple[int, ...] = ()
    ) -> None:
        self._trusted = _private_copy(backend)
        self._untrusted = _private_copy(backend)
        self._untrusted.encode_special_tokens = True
        self._control_ids = frozenset(
            token_id
            for token_id, token in backend.get_added_tokens_decoder().items()
            if token.special
        )
        self._has_template = bool(before or after)
        self.head_tokens: tuple[int, ...] = (
            *start_ids,
            *self._trusted.encode(before + PASSAGE_HEADING, add_special_tokens=False).ids,
        )
        self._closing = tuple(self._trusted.encode(after, add_special_tokens=False).ids)

    @classmethod
    def from_tokenizer(cls, tokenizer: Any) -> PromptTemplate:
        """From a transformers tokenizer with a Rust backend.

        Raises:
            UnsupportedModelError: its chat template cannot hold a user's message.
        """
        backend: Tokenizer = tokenizer.backend_tokenizer
        if not tokenizer.chat_template:
            return cls(backend, "", "", _opening_ids(tokenizer))
        before, after = min(_renderings(tokenizer), key=lambda parts: len(parts[0]))
        return cls(backend, before, after)

    def context_tokens(self, text: str) -> tuple[int, ...]:
        """Token ids of a context.

        Raises:
            EmptyInputError: nothing but white space.
        """
        return tuple(self._encode_context(text).ids)

    def context_spans(self, text: str) -> tuple[tuple[int, int], ...]:
        """Per context token, the half-open range of characters of ``text`` it stands for.

        Tokens inside one character share its range.
        """
        return tuple(self._encode_context(text).offsets)

    def located_tokens(self, text: str) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
        """``context_tokens`` and ``context_spans`` of a context, from one pass over it.

        Raises:
            EmptyInputError: nothing but white space.
        """
        encoding = self._encode_context(text)
        return tuple(encoding.ids), tuple(encoding.offsets)

    def tail_tokens(self, question: str) -> tuple[int, ...]:
        """Token ids from the end of the context to the start of the answer.

        Raises:
            EmptyInputError: nothing but white space.
        """
        if not question.strip():
            raise EmptyInputError("The question is empty; ask something.")
        cue = INSTRUCTION if self._has_template else PLAIN_ANSWER_CUE
        asked = self._encode_untrusted(f"{QUESTION_HEADING}{question}{cue}")
        return (*asked.ids, *self._closing)

    def plain_tokens(self, text: str) -> tuple[int, ...]:
        """Token ids of untrusted text: never a control token."""
        return tuple(self._encode_untrusted(text).ids)

    def opened_tokens(self, opening: str, text: str) -> tuple[int, ...]:
        """``plain_tokens`` after a control token of this tokenizer, e.g. ``<|im_start|>``."""
        opened = self._trusted.encode(opening, add_special_tokens=False).ids
        return (*opened, *self.plain_tokens(text))

    def _encode_context(self, text: str) -> Encoding:
        if not text.strip():
            raise EmptyInputError("The context is empty; give a text to ask about.")
        return self._encode_untrusted(text)

    def _encode_untrusted(self, text: str) -> Encoding:
        encoding = self._untrusted.encode(text, add_special_tokens=False)
        if not self._control_ids.isdisjoint(encoding.ids):
            raise UnsupportedModelError(
                "This tokenizer turns plain text into control tokens, so a document could pose as "
                "the chat template; use another model.",
            )
        return encoding


def _private_copy(backend: Tokenizer) -> Tokenizer:
    copy = Tokenizer.from_str(backend.to_str())
    copy.no_padding()
    copy.no_truncation()
    return copy


def _opening_ids(tokenizer: Any) -> tuple[int, ...]:
    """The token that the tokenizer puts before every text, if it does."""
    first: int | None = tokenizer.bos_token_id
    ids: list[int] = tokenizer.backend_tokenizer.encode("x", add_special_tokens=True).ids
    return (first,) if first is not None and ids[:1] == [first] else ()


def _renderings(tokenizer: Any) -> list[tuple[str, str]]:
    """(before, after) the user's message: as the template has it, and with an empty system turn.

    Some templates put a long default system message where none is given (SmolLM2: 20 tokens);
    others refuse the system role (Mistral).
    """
    user = {"role": "user", "content": PLACE}
    found: list[tuple[str, str]] = []
    reason = ""
    for messages in ([user], [{"role": "system", "content": ""}, user]):
        try:
            rendered: str = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, **TEMPLATE_OPTIONS
            )
        except TemplateError as error:
            reason = str(error)
            continue
        parts = rendered.split(PLACE)
        if len(parts) == 2:
            found.append((parts[0], parts[1]))
    if not found:
        raise UnsupportedModelError(
            f"The model's chat template cannot render one user message {reason}".rstrip() + "."
        )
    return found

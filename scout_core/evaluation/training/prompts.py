"""The token sequences the bundled pair is trained on.

Owns the cloud prompt (head, passage, tail: exactly what the engine sends) and the scout's own
prompt, with the question before *and* after the passage. Knows the tokenizer; knows no weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
INSTRUCTION = "Answer with a short phrase from the passage."
WRITE_QUESTION = "Write a question about the passage. Give the answer first."


@dataclass(frozen=True, slots=True)
class Prompter:
    """Token ids of prompts in SmolLM2's chat format; parts are tokenised apart, then joined."""

    tokenizer: Tokenizer

    def ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def head(self, system: str = "") -> list[int]:
        """Everything before the passage; the engine uses the empty system turn, the shortest."""
        return self.ids(f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\nPassage:\n")

    def tail(self, question: str) -> list[int]:
        """Everything after the passage up to the answer."""
        asked = f"\n\nQuestion: {question}\n{INSTRUCTION}"
        return self.ids(f"{asked}<|im_end|>\n<|im_start|>assistant\n")

    def writing_tail(self) -> list[int]:
        """The tail that asks for a question instead (synthetic data)."""
        return self.ids(f"\n\n{WRITE_QUESTION}<|im_end|>\n<|im_start|>assistant\n")

    def answer(self, text: str) -> list[int]:
        return [*self.ids(text), self.ids("<|im_end|>")[0]]

    def scout_head(self, question: str) -> list[int]:
        return self.ids(f"<|im_start|>Question: {question}\nPassage:\n")

    def scout_tail(self, question: str) -> list[int]:
        return self.ids(f"\n\nQuestion: {question}\n")

    def chat(self, message: str) -> list[int]:
        """An ordinary chat turn up to the reply."""
        return self.ids(
            f"<|im_start|>system\n{SYSTEM}<|im_end|>\n"
            f"<|im_start|>user\n{message}<|im_end|>\n<|im_start|>assistant\n"
        )

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The text of every token; joined they are the passage."""
        return [self.tokenizer.decode([token], skip_special_tokens=False) for token in ids]

    def text(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)

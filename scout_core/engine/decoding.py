"""Decoding one answer step by step: sampling, stopping, text. Knows steps, no model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from scout_core.engine.detokenizer import Detokenizer
from scout_core.protocol.answer import FinishReason
from scout_core.sampling import SamplingOptions

RunTokens = Callable[[Sequence[int]], torch.Tensor]
"""Appends tokens to the answer's cache and returns the logits ``[vocabulary]`` after the last."""


@dataclass(frozen=True, slots=True)
class DecodedToken:
    """One token of an answer; ``text`` is empty while a character is incomplete."""

    token_id: int
    text: str
    index: int


class Sampler:
    """Chooses tokens from logits, greedily or from the nucleus, with a random source of its own."""

    def __init__(self, options: SamplingOptions) -> None:
        self._options = options
        self._generator = torch.Generator().manual_seed(options.seed)

    def choose(self, logits: torch.Tensor) -> int:
        """A token id.

        Args:
            logits: float ``[vocabulary]``.
        """
        if self._options.greedy:
            return int(logits.argmax())
        scaled = logits.float().cpu() / self._options.temperature
        ordered, ids = scaled.softmax(dim=-1).sort(descending=True, stable=True)
        before = ordered.cumsum(dim=-1) - ordered
        nucleus = ordered.masked_fill(before >= self._options.top_p, 0.0)
        nucleus[0] = ordered[0]
        return int(ids[torch.multinomial(nucleus, 1, generator=self._generator)])


class Decoder:
    """One answer. Nothing runs before the first ``step``; each step is one job's worth of work.

    Args:
        run: appends tokens to a cache that is this decoder's own.
        tail: question and answer cue; run by the first step.
        room_tokens: most answer tokens that fit behind the tail in the model's window.
    """

    def __init__(
        self,
        run: RunTokens,
        tail: Sequence[int],
        sampling: SamplingOptions,
        stop_ids: frozenset[int],
        detokenizer: Detokenizer,
        room_tokens: int,
    ) -> None:
        self._run = run
        self._next_input: Sequence[int] = tuple(tail)
        self._sampler = Sampler(sampling)
        self._stop_ids = stop_ids
        self._detokenizer = detokenizer
        self._limit = min(sampling.max_tokens, room_tokens)
        self._decoded = 0
        self.finish_reason: FinishReason | None = None
        """Why the answer ended; None while it goes on."""
        self.last_logits: torch.Tensor | None = None
        """Logits ``[vocabulary]`` of the latest step, for tests and evaluation."""

    def step(self) -> DecodedToken | None:
        """The next token, or None once the answer has ended."""
        if self.finish_reason is not None:
            return None
        if self._decoded >= self._limit:
            self.finish_reason = FinishReason.MAX_TOKENS
            return None
        self.last_logits = self._run(self._next_input)
        token_id = self._sampler.choose(self.last_logits)
        if token_id in self._stop_ids:
            self.finish_reason = FinishReason.END_OF_TEXT
            return None
        self._next_input = (token_id,)
        decoded = DecodedToken(token_id, self._detokenizer.push(token_id), self._decoded)
        self._decoded += 1
        return decoded

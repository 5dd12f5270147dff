"""Scouts: whatever gives each context token a score for a question.

``AttentionScorer`` reads the question's attention in one pass after the context. A scorer that
sees the question before the context as well, or adds lexical features, implements ``ScoutScorer``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import torch

from scout_core.engine.engine import Engine
from scout_core.engine.kv_cache import KvCache
from scout_core.errors import CodecError, EmptyInputError, ProfileError
from scout_core.selection import (
    UNCALIBRATED,
    HeadWeights,
    uniform_mean_scores,
)
from scout_core.selection.importance import attended_importance
from scout_core.selection.passage import pieces_of
from scout_core.selection.scores import scores_with_words

CALIBRATED: Final = "calibrated_heads"
CALIBRATED_WITH_WORDS: Final = "calibrated_heads_and_words"


@dataclass(frozen=True, slots=True)
class ScoredContext:
    """Scores of one context for one question.

    Args:
        scores: float32 ``[context tokens]``, head tokens excluded; higher matters more.
        selector_name: how they came about; travels in every response.
        prefix: cache of head and context that the scorer used, full length, worth keeping; None
            when it has none.
        importance: float32 ``[context tokens]``, ≥ 0: how much an error in this engine's own KV of
            each token costs what the question reads (``selection.importance``); None when the
            scorer does not read it that way.
    """

    scores: torch.Tensor
    selector_name: str
    prefix: KvCache | None = None
    importance: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class ScoutContext:
    """A context as a scout gets it.

    Args:
        text: the context as the user gave it.
        tokens: its tokens by the scout's tokenizer, without head.
    """

    text: str
    tokens: Sequence[int]


class ScoutScorer(Protocol):
    """Scores contexts. Runs in the torch thread."""

    @property
    def selector_name(self) -> str:
        """How its scores come about, as responses report it."""
        ...

    def score(
        self, context: ScoutContext, question: str, prefix: KvCache | None = None
    ) -> ScoredContext:
        """Scores each token of the context for the question.

        Args:
            prefix: a cache of head and context by the same engine, if there is one; not changed.
        """
        ...


class AttentionScorer:
    """Scores by the attention of the question's rows over the cached context.

    Args:
        engine: the scout; may be cut to its first layers.
        weights: calibrated for this engine; None gives the plain mean, named as uncalibrated.

    Raises:
        ProfileError: the weights are for another shape of model.
    """

    def __init__(self, engine: Engine, weights: HeadWeights | None) -> None:
        if weights is not None and (weights.layers, weights.heads) != (engine.layers, engine.heads):
            raise ProfileError(
                f"Head weights are for {weights.layers} layers of {weights.heads} heads, "
                f"{engine.name} runs {engine.layers} of {engine.heads}; calibrate this model.",
            )
        self._engine = engine
        self._weights = weights

    @property
    def selector_name(self) -> str:
        if self._weights is None:
            return UNCALIBRATED
        return CALIBRATED if self._weights.lexical is None else CALIBRATED_WITH_WORDS

    def score(
        self, context: ScoutContext, question: str, prefix: KvCache | None = None
    ) -> ScoredContext:
        """See ``ScoutScorer``.

        Raises:
            EmptyInputError: no context tokens, or a blank question.
            CodecError: the prefix is not this context's: its length differs.
            ContextTooLongError: more than the scout's window.
        """
        if not context.tokens:
            raise EmptyInputError("The context is empty; give a text to ask about.")
        engine = self._engine
        tail = engine.prompt.tail_tokens(question)
        head = engine.prompt.head_tokens
        if prefix is None:
            prefix = engine.new_cache(len(head) + len(context.tokens))
            engine.prefill(prefix, (*head, *context.tokens))
        if prefix.length != len(head) + len(context.tokens):
            raise CodecError(
                f"The prefix holds {prefix.length} positions, the context needs "
                f"{len(head) + len(context.tokens)}; it is another context's.",
            )
        attention = engine.question_attention(prefix, tail)[:, :, len(head) :]
        importance = attended_importance(attention)
        if self._weights is None:
            scores = uniform_mean_scores(attention)
        else:
            pieces = pieces_of(context.text, engine.prompt.context_spans(context.text))
            scores = scores_with_words(attention, self._weights, pieces, question)
        return ScoredContext(scores, self.selector_name, prefix, importance)

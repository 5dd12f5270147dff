"""The trained scout: question before and after the passage, attention and word overlap read out.

Owns the scout's own prompt and the collection of its attention. The question stands before the
passage as well, so the cache depends on it and is not worth keeping. One pass, memory linear in
the passage: only the question's rows are scored.
"""

from __future__ import annotations

from typing import Final

import torch

from scout_core.engine.engine import Engine
from scout_core.engine.kv_cache import KvCache
from scout_core.engine.prompt import PromptTemplate
from scout_core.engine.scoring import ScoredContext, ScoutContext
from scout_core.errors import EmptyInputError, ProfileError
from scout_core.selection.lexical import FEATURES, features
from scout_core.selection.passage import pieces_of
from scout_core.selection.readout import Readout, lexical_channels, standardised

TRAINED: Final = "trained_scout"
OPENING: Final = "<|im_start|>"
"""Control token that opens the scout's prompt; the rest is plain, untrusted text."""
PASS_TOKENS: Final = 256
"""Tokens of one pass over the passage. Nobody reproduces the scout's cache, so passes need not be
the wire's blocks: a CPU's matrix product is at full speed from here on, at four fifths with 64."""


def scout_segments(
    prompt: PromptTemplate, question: str
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What stands before and after the passage in the trained scout's prompt."""
    head = prompt.opened_tokens(OPENING, f"Question: {question}\nPassage:\n")
    return head, prompt.plain_tokens(f"\n\nQuestion: {question}\n")


class QuestionAttention:
    """Log-attention of the tail's rows over the passage: mean over rows, and the last row.

    The tail follows the passage, which is ``count`` positions from ``start`` on; rows before the
    tail are passed over.
    """

    def __init__(self, start: int, count: int) -> None:
        self._columns = slice(start, start + count)
        self._sums: dict[int, torch.Tensor] = {}
        self._last: dict[int, torch.Tensor] = {}

    def observe(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        scaling: float,
        mask: torch.Tensor | None,
    ) -> None:
        """Adds the rows of one layer; ``mask`` matters only among the tail's own columns."""
        del mask
        first = key.shape[1] - query.shape[1]
        query = query[:, max(0, self._columns.stop - first) :]
        heads, rows, head_dim = query.shape
        if rows == 0:
            return
        kept = key[:, self._columns].float()
        folded = query.float().reshape(kept.shape[0], -1, head_dim)
        logs = ((folded @ kept.transpose(1, 2)) * scaling).log_softmax(-1).view(heads, rows, -1)
        total = logs.logsumexp(1)
        before = self._sums.get(layer)
        self._sums[layer] = total if before is None else torch.logaddexp(before, total)
        self._last[layer] = logs[:, -1]

    def channels(self, rows: int) -> torch.Tensor:
        """``[layers · 2 · heads, n]`` in the readout's order."""
        shift = torch.log(torch.tensor(float(rows)))
        blocks: list[torch.Tensor] = []
        for layer in sorted(self._sums):
            blocks += [self._sums[layer] - shift.to(self._sums[layer].device), self._last[layer]]
        return torch.cat(blocks)


class TrainedScorer:
    """A ``ScoutScorer`` for an engine whose adapter and readout were trained together.

    Raises:
        ProfileError: the readout was trained for another shape of model.
    """

    def __init__(self, engine: Engine, readout: Readout) -> None:
        wanted = (engine.layers * engine.heads * 2 + 2 * len(FEATURES), engine.hidden_size)
        if (readout.channels, readout.hidden_size) != wanted:
            raise ProfileError(
                f"The readout reads {readout.channels} channels and states of "
                f"{readout.hidden_size}, {engine.name} gives {wanted[0]} and {wanted[1]}; "
                "it was trained for another model.",
            )
        self._engine = engine
        self._readout = readout

    @property
    def selector_name(self) -> str:
        return TRAINED

    def score(
        self, context: ScoutContext, question: str, prefix: KvCache | None = None
    ) -> ScoredContext:
        """See ``ScoutScorer``; a prefix has no question before the passage and is not used.

        Raises:
            EmptyInputError: no context tokens, or a blank question.
            ContextTooLongError: more than the scout's window.
        """
        del prefix
        if not context.tokens:
            raise EmptyInputError("The context is empty; give a text to ask about.")
        if not question.strip():
            raise EmptyInputError("The question is empty; ask something.")
        engine = self._engine
        head, tail = scout_segments(engine.prompt, question)
        count = len(context.tokens)
        cache = engine.new_cache(len(head) + count + len(tail))
        attention = QuestionAttention(len(head), count)
        tokens = (*head, *context.tokens, *tail)
        states = engine.prefill_states(cache, tokens, PASS_TOKENS, attention)
        states = states[len(head) : len(head) + count]
        spans = engine.prompt.context_spans(context.text)[:count]
        table = torch.from_numpy(features(pieces_of(context.text, spans), question)).T[None]
        valid = torch.ones((1, count), dtype=torch.bool)
        seen = standardised(attention.channels(len(tail)).cpu()[None], valid[:, None])
        channels = torch.cat((seen, lexical_channels(table, valid[:, None])), dim=1)
        with torch.no_grad():
            scores = self._readout.scores(channels, states[None], valid)[0]
        return ScoredContext(scores, TRAINED)

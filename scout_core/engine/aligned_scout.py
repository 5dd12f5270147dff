"""A scout of another family: scores in its own tokens, carried to the cloud's by characters.

Owns which text is tokenised by whom. The scorer inside sees its own tokens and its own prompt;
whoever asks gets scores of the tokens it asked about, so that a retention is exact in the cloud's
count. The arithmetic is ``scout_core.selection.alignment``'s.
"""

from __future__ import annotations

from typing import Final

from scout_core.engine.kv_cache import KvCache
from scout_core.engine.prompt import PromptTemplate
from scout_core.engine.scoring import ScoredContext, ScoutContext, ScoutScorer
from scout_core.errors import PositionsError
from scout_core.selection.alignment import align_scores

ALIGNED: Final = "aligned"
"""Stands after the selector's name in responses: its scores crossed between tokenizers."""


class AlignedScorer:
    """A ``ScoutScorer`` for contexts in another tokenizer's tokens.

    Args:
        scorer: scores in the tokens of ``own``.
        own: the scout's prompt.
        asked: the prompt whose context tokens are to be scored.
    """

    def __init__(self, scorer: ScoutScorer, own: PromptTemplate, asked: PromptTemplate) -> None:
        self._scorer = scorer
        self._own = own
        self._asked = asked

    @property
    def selector_name(self) -> str:
        return f"{self._scorer.selector_name} {ALIGNED}"

    def score(
        self, context: ScoutContext, question: str, prefix: KvCache | None = None
    ) -> ScoredContext:
        """See ``ScoutScorer``; tokens are those of ``asked``, a prefix is the scout's own.

        Raises:
            PositionsError: the tokens are not this text's.
            EmptyInputError, ContextTooLongError: as the scorer, in its own tokens.
        """
        asked = self._asked.context_spans(context.text)
        if len(asked) != len(context.tokens):
            raise PositionsError(
                f"The text has {len(asked)} tokens, {len(context.tokens)} came with it.",
            )
        own = ScoutContext(context.text, self._own.context_tokens(context.text))
        scored = self._scorer.score(own, question, prefix)
        scores = align_scores(scored.scores, self._own.context_spans(context.text), asked)
        return ScoredContext(scores, self.selector_name, scored.prefix)

"""The attention scorer gives one score per context token and reuses a prefix."""

from __future__ import annotations

import pytest
import torch

from scout_core.engine import Engine
from scout_core.engine.scoring import (
    CALIBRATED,
    CALIBRATED_WITH_WORDS,
    AttentionScorer,
    ScoutContext,
    ScoutScorer,
)
from scout_core.errors import CodecError, EmptyInputError, ProfileError
from scout_core.selection import UNCALIBRATED, HeadWeights, calibrated_scores
from scout_core.selection.lexical import FEATURES
from scout_core.selection.passage import pieces_of
from scout_core.selection.scores import lexical_rows
from tests.support.tiny_models import HEADS, LAYERS

TEXT = "The lamp was converted to electricity; the beam reaches far."
QUESTION = "What was converted?"


@pytest.fixture
def context(llama: Engine) -> ScoutContext:
    return ScoutContext(TEXT, llama.prompt.context_tokens(TEXT))


def test_scores_cover_the_context_and_nothing_else(llama: Engine, context: ScoutContext) -> None:
    scorer: ScoutScorer = AttentionScorer(llama, None)
    scored = scorer.score(context, QUESTION)
    assert scored.scores.shape == (len(context.tokens),)
    assert scored.selector_name == UNCALIBRATED
    assert scored.prefix is not None
    assert scored.prefix.length == len(llama.prompt.head_tokens) + len(context.tokens)


def test_a_prefix_at_hand_gives_the_same_scores_and_stays_as_it_was(
    llama: Engine, context: ScoutContext
) -> None:
    scorer = AttentionScorer(llama, None)
    first = scorer.score(context, QUESTION)
    assert first.prefix is not None
    again = scorer.score(context, QUESTION, first.prefix)
    assert torch.equal(again.scores, first.scores)
    assert first.prefix.next_position == first.prefix.length


def test_importance_is_what_the_question_attends_to_squared(
    llama: Engine, context: ScoutContext
) -> None:
    scored = AttentionScorer(llama, None).score(context, QUESTION)
    assert scored.prefix is not None
    tail = llama.prompt.tail_tokens(QUESTION)
    attention = llama.question_attention(scored.prefix, tail)[:, :, -len(context.tokens) :]
    assert scored.importance is not None
    torch.testing.assert_close(scored.importance, attention.square().mean(dim=(0, 1)))


def test_calibrated_scores_come_from_the_attention_without_the_head(
    llama: Engine, context: ScoutContext
) -> None:
    weights = HeadWeights(torch.rand(LAYERS, HEADS))
    scored = AttentionScorer(llama, weights).score(context, QUESTION)
    assert scored.prefix is not None
    tail = llama.prompt.tail_tokens(QUESTION)
    attention = llama.question_attention(scored.prefix, tail)
    head = len(llama.prompt.head_tokens)
    assert scored.selector_name == CALIBRATED
    assert torch.equal(scored.scores, calibrated_scores(attention[:, :, head:], weights))


def test_words_are_added_to_the_heads_and_said_so(llama: Engine, context: ScoutContext) -> None:
    weights = torch.rand(LAYERS, HEADS)
    lexical = torch.linspace(-1, 1, len(FEATURES))
    heads = AttentionScorer(llama, HeadWeights(weights)).score(context, QUESTION)
    both = AttentionScorer(llama, HeadWeights(weights, lexical=lexical)).score(context, QUESTION)
    pieces = pieces_of(TEXT, llama.prompt.context_spans(TEXT))
    assert both.selector_name == CALIBRATED_WITH_WORDS
    expected = heads.scores + lexical @ lexical_rows(pieces, QUESTION)
    assert torch.equal(both.scores, expected)
    assert not torch.equal(both.scores, heads.scores)


def test_weights_of_another_shape_are_refused_at_once(llama: Engine) -> None:
    with pytest.raises(ProfileError, match="calibrate this model"):
        AttentionScorer(llama, HeadWeights(torch.ones(LAYERS + 1, HEADS)))


def test_another_contexts_prefix_and_an_empty_context_are_refused(
    llama: Engine, context: ScoutContext
) -> None:
    scorer = AttentionScorer(llama, None)
    prefix = scorer.score(context, QUESTION).prefix
    with pytest.raises(CodecError, match="another context"):
        scorer.score(ScoutContext(TEXT, context.tokens[:-1]), QUESTION, prefix)
    with pytest.raises(EmptyInputError):
        scorer.score(ScoutContext("", ()), QUESTION)

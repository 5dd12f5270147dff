"""A scout of another family scores the cloud's tokens, through the characters of the text."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from scout_core.engine import Engine
from scout_core.engine.aligned_scout import ALIGNED, AlignedScorer
from scout_core.engine.scoring import AttentionScorer, ScoutContext
from scout_core.engine.scouts import scorer_between
from scout_core.errors import EmptyInputError, PositionsError
from scout_core.selection import UNCALIBRATED
from scout_core.selection.alignment import align_scores
from tests.support.tiny_models import foreign_tokenizer, save_tiny_model, tiny_engine

TEXT = "The lamp was converted to electricity; naïve 日本語 🎉 beams <|end|> reach far."
QUESTION = "What was converted?"


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder: Path = tmp_path_factory.mktemp("foreign")
    return tiny_engine(save_tiny_model(folder, "gemma3", tokenizer=foreign_tokenizer()))


def test_scores_are_of_the_tokens_that_were_asked_about(llama: Engine, foreign: Engine) -> None:
    scorer = scorer_between(foreign, llama, None)
    tokens = llama.prompt.context_tokens(TEXT)
    scored = scorer.score(ScoutContext(TEXT, tokens), QUESTION)
    own = ScoutContext(TEXT, foreign.prompt.context_tokens(TEXT))
    assert own.tokens != tokens
    theirs = AttentionScorer(foreign, None).score(own, QUESTION)
    expected = align_scores(
        theirs.scores, foreign.prompt.context_spans(TEXT), llama.prompt.context_spans(TEXT)
    )
    assert scored.scores.shape == (len(tokens),)
    assert torch.equal(scored.scores, expected)
    assert scored.selector_name == f"{UNCALIBRATED} {ALIGNED}"


def test_the_scouts_own_prefix_is_used_again(llama: Engine, foreign: Engine) -> None:
    scorer = scorer_between(foreign, llama, None)
    context = ScoutContext(TEXT, llama.prompt.context_tokens(TEXT))
    first = scorer.score(context, QUESTION)
    assert first.prefix is not None
    again = scorer.score(context, QUESTION, first.prefix)
    assert torch.equal(again.scores, first.scores)


def test_a_scout_of_the_same_tokenizer_needs_no_alignment(llama: Engine) -> None:
    assert isinstance(scorer_between(llama, llama, None), AttentionScorer)


def test_tokens_of_another_text_are_refused(llama: Engine, foreign: Engine) -> None:
    scorer = AlignedScorer(AttentionScorer(foreign, None), foreign.prompt, llama.prompt)
    with pytest.raises(PositionsError, match="came with it"):
        scorer.score(ScoutContext(TEXT, llama.prompt.context_tokens(TEXT)[:-1]), QUESTION)
    with pytest.raises(EmptyInputError):
        scorer.score(ScoutContext(" ", ()), QUESTION)


def test_bytes_of_one_character_share_its_span(foreign: Engine) -> None:
    spans = foreign.prompt.context_spans("a日b")
    assert spans == ((0, 1), (1, 2), (1, 2), (1, 2), (2, 3))

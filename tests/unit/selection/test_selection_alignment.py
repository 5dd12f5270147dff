"""Scores and selections travel between tokenizers through the characters both stand for."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from scout_core.errors import PositionsError
from scout_core.selection.alignment import (
    Span,
    align_scores,
    covering_tokens,
    kept_spans,
)

TEXT = "Naïve 日本語 🎉𓀀 words, and  two spaces.\n\nEnd"


def byte_spans(text: str) -> tuple[Span, ...]:
    """Every token a byte, as byte fallback makes them: several share one character."""
    return tuple(
        (index, index + 1) for index, character in enumerate(text) for _ in character.encode()
    )


def word_spans(text: str) -> tuple[Span, ...]:
    """Words without their spaces: the spaces belong to no token."""
    return tuple(span for _, span in pre_tokenizers.Whitespace().pre_tokenize_str(text))


@st.composite
def spans_of(draw: st.DrawFn, characters: int) -> list[Span]:
    pair = st.tuples(st.integers(0, characters), st.integers(0, characters)).map(
        lambda ends: (min(ends), max(ends))
    )
    return sorted(draw(st.lists(pair, min_size=1, max_size=20)))


@st.composite
def scored(draw: st.DrawFn) -> tuple[list[Span], list[Span], list[float]]:
    characters = draw(st.integers(1, 40))
    source, target = draw(spans_of(characters)), draw(spans_of(characters))
    values = st.floats(-8, 8, width=32)
    return source, target, draw(st.lists(values, min_size=len(source), max_size=len(source)))


def characters_of(spans: Sequence[Span]) -> set[int]:
    return {character for begin, end in spans for character in range(begin, end)}


@given(scored())
def test_equal_spans_keep_scores_as_they_are(
    case: tuple[list[Span], list[Span], list[float]],
) -> None:
    spans, _, values = case
    assert align_scores(torch.tensor(values), spans, spans).tolist() == values


@given(scored())
def test_a_token_gets_the_highest_score_that_shares_a_character_with_it(
    case: tuple[list[Span], list[Span], list[float]],
) -> None:
    source, target, values = case
    aligned = align_scores(torch.tensor(values), source, target).tolist()
    for span, score in zip(target, aligned, strict=True):
        mine = characters_of([span]) or {span[0]}
        sharing = [
            value
            for value, other in zip(values, source, strict=True)
            if mine & characters_of([other])
        ]
        if source != target:
            assert score == max(sharing, default=min(values))


@given(scored(), st.integers(0, 19), st.floats(0, 5, width=32))
def test_a_higher_score_never_lowers_another(
    case: tuple[list[Span], list[Span], list[float]], index: int, rise: float
) -> None:
    source, target, values = case
    before = align_scores(torch.tensor(values), source, target)
    # Not the lowest: what nothing covers follows it.
    order = sorted(range(len(values)), key=values.__getitem__)
    raised = list(values)
    raised[order[-1 - index % len(order)]] += rise
    assert bool((align_scores(torch.tensor(raised), source, target) >= before).all())


@given(st.data())
def test_every_kept_character_is_covered_and_nothing_else_is_kept(data: st.DataObject) -> None:
    characters = data.draw(st.integers(1, 40))
    source, target = data.draw(spans_of(characters)), data.draw(spans_of(characters))
    chosen = sorted(data.draw(st.sets(st.integers(0, len(source) - 1))))
    kept = kept_spans(np.array(chosen, dtype=np.int64), source)
    wanted = characters_of([source[index] for index in chosen])
    assert characters_of(kept) == wanted
    assert all(one[1] < other[0] for one, other in pairwise(kept))
    tokens = covering_tokens(kept, target)
    covered = characters_of([target[index] for index in tokens])
    assert wanted & characters_of(target) <= covered
    for index, (begin, end) in enumerate(target):
        touches = bool(wanted & (characters_of([(begin, end)]) or {begin}))
        assert touches == (index in tokens)


@given(st.data())
def test_a_larger_selection_keeps_what_a_smaller_one_keeps(data: st.DataObject) -> None:
    characters = data.draw(st.integers(1, 40))
    source, target = data.draw(spans_of(characters)), data.draw(spans_of(characters))
    every = range(len(source))
    more = data.draw(st.sets(st.sampled_from(every)))
    less = data.draw(st.sets(st.sampled_from(sorted(more)))) if more else set[int]()
    small, large = (
        set(covering_tokens(kept_spans(np.array(sorted(part), np.int64), source), target).tolist())
        for part in (less, more)
    )
    assert small <= large


def test_bytes_of_one_character_share_its_score_and_its_fate() -> None:
    words, every_byte = word_spans(TEXT), byte_spans(TEXT)
    scores = torch.arange(len(words), dtype=torch.float32)
    aligned = align_scores(scores, words, every_byte)
    of_character: dict[Span, set[float]] = {}
    for span, score in zip(every_byte, aligned.tolist(), strict=True):
        of_character.setdefault(span, set()).add(score)
    assert all(len(values) == 1 for values in of_character.values())
    kept = kept_spans(np.array([1, 3], dtype=np.int64), words)
    tokens = covering_tokens(kept, every_byte)
    assert {every_byte[index] for index in tokens} == {
        (character, character + 1) for character in characters_of(kept)
    }
    back = align_scores(aligned, every_byte, words)
    assert torch.equal(back, scores)


def test_what_no_source_token_covers_is_chosen_last() -> None:
    aligned = align_scores(torch.tensor([-3.0, 2.0]), [(0, 2), (4, 6)], [(0, 2), (2, 4), (4, 6)])
    assert aligned.tolist() == [-3.0, -3.0, 2.0]


def test_a_token_without_text_goes_with_the_character_behind_it() -> None:
    target = [(0, 0), (0, 2), (2, 2), (2, 4), (4, 4)]
    aligned = align_scores(torch.tensor([1.0, 5.0]), [(0, 2), (2, 4)], target)
    assert aligned.tolist() == [1.0, 1.0, 5.0, 5.0, 1.0]
    assert covering_tokens([(2, 4)], target).tolist() == [2, 3]


def test_nothing_kept_keeps_no_token() -> None:
    assert kept_spans(np.empty(0, np.int64), [(0, 1)]) == ()
    assert covering_tokens((), [(0, 1)]).size == 0


def test_scores_must_fit_the_tokens_and_selections_the_text() -> None:
    with pytest.raises(PositionsError, match="one each"):
        align_scores(torch.zeros(2), [(0, 1)], [(0, 1)])
    with pytest.raises(PositionsError, match="one each"):
        align_scores(torch.zeros(0), [], [(0, 1)])
    with pytest.raises(PositionsError, match="beyond"):
        kept_spans(np.array([1]), [(0, 1)])

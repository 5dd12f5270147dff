"""Calibration finds the heads that point at the answer, and says how well on other questions."""

from __future__ import annotations

import pytest
import torch

from scout_core.errors import EmptyInputError, ProfileError
from scout_core.selection.calibration import CalibrationCase, answer_recall, fit_head_weights
from scout_core.selection.head_weights import HeadWeights
from scout_core.selection.lexical import FEATURES

LAYERS, HEADS, POSITIONS, SPAN = 3, 4, 60, 5
POINTING = (1, 2)
WORDY = 7


def case(seed: int) -> CalibrationCase:
    """Noise in every head, except one that looks at the answer."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(LAYERS, HEADS, POSITIONS, generator=generator)
    start = int(torch.randint(0, POSITIONS - SPAN, (1,), generator=generator))
    answer = torch.zeros(POSITIONS, dtype=torch.bool)
    answer[start : start + SPAN] = True
    scores[POINTING][answer] += 3.0
    return CalibrationCase(scores.softmax(dim=-1), answer)


def test_the_pointing_head_gets_the_highest_weight_and_finds_unseen_answers() -> None:
    fitted = fit_head_weights([case(seed) for seed in range(30)])
    assert int(fitted.weights.weights.argmax()) == POINTING[0] * HEADS + POINTING[1]
    assert fitted.held_out_cases == 6
    unseen = [case(seed) for seed in range(100, 120)]
    uniform = HeadWeights(torch.ones(LAYERS, HEADS))
    assert answer_recall(unseen, fitted.weights, 0.25) > 0.9
    assert answer_recall(unseen, uniform, 0.25) < 0.8


def test_equal_cases_give_equal_weights() -> None:
    cases = [case(seed) for seed in range(12)]
    first, second = fit_head_weights(cases), fit_head_weights(cases)
    assert torch.equal(first.weights.weights, second.weights.weights)
    assert first.penalty == second.penalty


def test_too_few_answerable_questions_are_refused() -> None:
    silent = CalibrationCase(case(0).attention, torch.zeros(POSITIONS, dtype=torch.bool))
    with pytest.raises(EmptyInputError, match="got 9"):
        fit_head_weights([*(case(seed) for seed in range(9)), silent])


def worded(seed: int) -> CalibrationCase:
    """No head looks at the answer, one lexical column does."""
    blind = case(seed)
    generator = torch.Generator().manual_seed(seed)
    lexical = torch.randn(len(FEATURES), POSITIONS, generator=generator)
    lexical[WORDY, blind.answer] += 3.0
    noise = torch.randn(LAYERS, HEADS, POSITIONS, generator=generator).softmax(dim=-1)
    return CalibrationCase(noise, blind.answer, lexical)


def test_words_are_weighed_beside_the_heads_and_survive_a_profile() -> None:
    fitted = fit_head_weights([worded(seed) for seed in range(30)], pool_width=1).weights
    assert fitted.lexical is not None
    assert int(fitted.lexical.argmax()) == WORDY
    unseen = [worded(seed) for seed in range(100, 110)]
    heads_alone = HeadWeights(fitted.weights, pool_width=1)
    assert answer_recall(unseen, fitted, 0.25) > 0.8 > answer_recall(unseen, heads_alone, 0.25)
    again = HeadWeights.from_dict(fitted.to_dict())
    assert again.lexical is not None
    assert torch.equal(again.lexical, fitted.lexical)


def test_lexical_weights_of_another_table_are_refused() -> None:
    with pytest.raises(ProfileError, match="Lexical weights"):
        HeadWeights(torch.ones(LAYERS, HEADS), lexical=torch.ones(3))

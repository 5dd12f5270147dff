"""Answer scores and statistics."""

from __future__ import annotations

import numpy as np
import pytest

from scout_core.evaluation.metrics import (
    answer_f1,
    exact_match,
    mean_interval,
    normalised,
    paired_p_value,
    per_question,
    ratio_interval,
)


def test_normalisation_drops_case_articles_and_punctuation() -> None:
    assert normalised("  The  Saxon, Garden! ") == "saxon garden"


def test_the_best_gold_answer_counts() -> None:
    assert answer_f1("the Timucua people", ["Spain", "the Timucua"]) == pytest.approx(2 / 3)
    assert exact_match("Timucua.", ["the Timucua"]) == 1.0


def test_no_gold_answer_means_unanswerable_is_right() -> None:
    assert answer_f1("unanswerable", []) == 1.0
    assert answer_f1("1817", []) == 0.0


def test_an_interval_holds_its_mean_and_narrows_with_n() -> None:
    generator = np.random.default_rng(1)
    few, many = generator.random(20), generator.random(2000)
    wide, narrow = mean_interval(few), mean_interval(many)
    assert wide.low < wide.value < wide.high
    assert narrow.high - narrow.low < wide.high - wide.low


def test_a_ratio_of_equal_series_is_one_without_spread() -> None:
    values = np.array([0.2, 1.0, 0.5, 0.0])
    interval = ratio_interval(values, values)
    assert (interval.low, interval.value, interval.high) == (1.0, 1.0, 1.0)


def test_statistics_refuse_nothing_to_measure() -> None:
    with pytest.raises(ValueError, match="at least one"):
        mean_interval(np.array([]))
    with pytest.raises(ValueError, match="above zero"):
        ratio_interval(np.zeros(3), np.zeros(3))


def test_the_paired_test_sees_a_constant_gain_and_no_gain() -> None:
    before = np.linspace(0.0, 0.8, 30)
    assert paired_p_value(before + 0.1, before) < 0.001
    assert paired_p_value(before, before) == 1.0


def test_scores_pair_predictions_with_their_answers() -> None:
    scores = per_question(exact_match, ["a b", "c"], [["a b"], ["d"]])
    assert scores.tolist() == [1.0, 0.0]

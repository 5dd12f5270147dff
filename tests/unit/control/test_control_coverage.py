"""Coverage correction: stated probabilities come to mean what they say."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scout_core.control.coverage import IDENTITY, LEVELS, CoverageCounts, corrected


@given(st.floats(0.0, 1.0))
def test_without_evidence_probabilities_are_nearly_unchanged(probability: float) -> None:
    curve = CoverageCounts().curve()
    assert corrected(probability, curve) == pytest.approx(probability, abs=0.03)
    assert corrected(probability, IDENTITY) == pytest.approx(probability)


@given(st.lists(st.floats(0.0, 1.0), max_size=50), st.floats(0.0, 0.99))
def test_the_curve_is_monotone_from_zero_to_one(levels: list[float], probability: float) -> None:
    counts = CoverageCounts()
    for level in levels:
        counts.count(level)
    curve = counts.curve()
    assert (curve[0], curve[-1]) == (0.0, 1.0)
    assert list(curve) == sorted(curve)
    assert corrected(probability, curve) <= corrected(probability + 0.01, curve)


def test_overconfident_forecasts_are_corrected() -> None:
    source = random.Random(2)
    counts = CoverageCounts()
    for _ in range(300):
        # Half of all times lie above what was called the 90 % quantile.
        counts.count(source.choice([source.uniform(0.0, 0.9), source.uniform(0.9, 1.0)]))
    assert corrected(0.9, counts.curve()) == pytest.approx(0.5, abs=0.08)
    assert LEVELS[6] == 0.9

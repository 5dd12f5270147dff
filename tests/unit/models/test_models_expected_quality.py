"""What the policy is given of a measurement: never luck, always what was clearly shown."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scout_core.models.quality import QualityRow, expected_quality
from scout_core.modes import Execution, Mode


def measured(quality: float, deviation: float, n: int = 300) -> QualityRow:
    reach = 1.96 * deviation
    return QualityRow(
        Mode.SCOUT, Execution.EVICT, 0.5, 1, 999, quality, n, quality - reach, quality + reach
    )


@given(st.floats(0.1, 1.5), st.floats(1e-4, 0.3))
def test_nothing_is_expected_above_the_whole_context_unless_it_was_clearly_measured(
    quality: float, deviation: float
) -> None:
    expected = expected_quality(measured(quality, deviation))
    if quality - 3.001 * deviation > 1.0:
        assert expected == quality
    elif quality - 2.999 * deviation < 1.0:
        assert expected <= min(1.0, quality)


def test_a_clear_loss_is_expected_as_it_was_measured() -> None:
    assert expected_quality(measured(0.8, 0.02)) == pytest.approx(0.8, abs=1e-9)


def test_of_two_equal_means_the_better_measured_one_is_expected_to_be_better() -> None:
    assert expected_quality(measured(1.0, 0.003)) > expected_quality(measured(1.0, 0.03))


@pytest.mark.parametrize(("quality", "deviation"), [(1.03, 0.02), (0.99, 0.02), (1.0, 0.05)])
def test_it_is_the_mean_of_the_measurement_below_one(quality: float, deviation: float) -> None:
    generator = random.Random(1)
    drawn = (generator.gauss(quality, deviation) for _ in range(200_000))
    below = [value for value in drawn if value < 1.0]
    mean = math.fsum(below) / len(below)
    expected = expected_quality(measured(quality, deviation))
    assert expected == pytest.approx(mean, abs=4 * deviation / math.sqrt(len(below)))


def test_assumptions_and_definitions_stay_as_they_are() -> None:
    assert expected_quality(measured(1.2, 0.1, n=0)) == 1.2
    assert expected_quality(measured(1.0, 0.0)) == 1.0

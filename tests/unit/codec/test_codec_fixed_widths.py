"""Fixed-width coefficients: the packed bits as defined, and who gets them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import optimize

from scout_core.codec.fixed_widths import (
    ERRORS,
    LARGEST_WIDTH,
    STEPS,
    allocated_widths,
    pack_rows,
    packed_bytes,
    unpack_rows,
)


@given(
    st.lists(st.integers(1, LARGEST_WIDTH), min_size=1, max_size=6),
    st.integers(1, 40),
    st.integers(0, 2**32 - 1),
)
def test_bits_are_packed_as_defined_and_come_back(
    chosen: list[int], length: int, seed: int
) -> None:
    source = np.random.default_rng(seed)
    widths = np.array(chosen, dtype=np.uint8)
    values = (source.standard_normal((widths.size, length)) * 40).astype(np.float32)
    steps = source.uniform(0.5, 2, widths.size).astype(np.float32)
    packed = np.empty(packed_bytes(widths, length), dtype=np.uint8)
    assert pack_rows(values, steps, widths, packed)
    expected = b""
    decoded = np.empty_like(values)
    for row, width in enumerate(chosen):
        half = 1 << (width - 1)
        levels = np.floor(values[row] * (np.float32(1) / steps[row])).clip(-half, half - 1)
        codes = (levels + half).astype(int).tolist()
        number = sum(code << (width * index) for index, code in enumerate(codes))
        expected += number.to_bytes((width * length + 7) // 8, "little")
        middles = levels.astype(np.float32) + np.float32(0.5)
        decoded[row] = middles * steps[row]
    assert packed.tobytes() == expected
    returned = np.empty_like(values)
    unpack_rows(packed, steps, widths, returned)
    assert np.array_equal(returned, decoded)


def laplace_error(step: float, width: int) -> float:
    """Mean square error of a width's codes for a Laplace density of variance 1, in closed form.

    Codes mean the middles of 2^width intervals of one step about zero; the outer ones take what
    lies beyond. An interval's part is the difference of an antiderivative of (x - c)^2 p(x).
    """
    rate = math.sqrt(2)
    centres = (np.arange(1 << (width - 1)) + 0.5) * step

    def antiderivative(at: NDArray[Any], centre: NDArray[Any]) -> NDArray[Any]:
        away = at - centre
        return -np.exp(-rate * at) * (away**2 + 2 * away / rate + 2 / rate**2)

    upper = antiderivative(centres + step / 2, centres)
    upper[-1] = 0.0
    return float((upper - antiderivative(centres - step / 2, centres)).sum())


@pytest.mark.parametrize("width", range(1, LARGEST_WIDTH + 1))
def test_steps_and_errors_are_those_of_the_best_uniform_quantiser_of_a_laplace_density(
    width: int,
) -> None:
    minimise: Any = optimize.minimize_scalar  # has no types
    best = minimise(
        laplace_error, bounds=(1e-3, 3), args=(width,), method="bounded", options={"xatol": 1e-9}
    )
    assert STEPS[width] == pytest.approx(best.x, abs=6e-5)
    assert ERRORS[width] == pytest.approx(best.fun, rel=0.015)
    assert laplace_error(STEPS[width], width) == pytest.approx(best.fun, rel=1e-4)


def test_no_bits_leave_the_whole_variance() -> None:
    assert (STEPS[0], ERRORS[0]) == (0.0, 1.0)


def test_a_value_that_is_no_number_is_reported() -> None:
    values = np.array([[1.0, np.nan]], dtype=np.float32)
    one = np.ones(1, dtype=np.float32)
    assert not pack_rows(values, one, np.array([4], np.uint8), np.empty(1, np.uint8))


@given(st.integers(1, 60), st.integers(0, 500), st.integers(0, 2**32 - 1))
def test_all_bits_are_given_and_larger_deviations_get_no_fewer(
    count: int, bits: int, seed: int
) -> None:
    deviations = np.sort(np.random.default_rng(seed).lognormal(0, 2, count))[::-1]
    widths = allocated_widths(deviations.astype(np.float32), bits)
    assert widths.sum() == min(bits, LARGEST_WIDTH * count)
    assert (np.diff(widths) <= 0).all()

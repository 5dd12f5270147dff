"""Fixed-width coefficients: the packed bits as defined, and who gets them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from scout_core.codec.fixed_widths import (
    LARGEST_WIDTH,
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

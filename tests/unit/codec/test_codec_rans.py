"""The entropy coder: close to the entropy, exact, and strict about its end."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scout_core.codec.rans import (
    STATE_BYTES,
    TOTAL,
    RansModels,
    decode_symbols,
    encode_symbols,
    normalised,
)
from scout_core.errors import CodecError

WEIGHTS = np.array([[1000, 200, 50, 3, 1], [1, 1, 1, 1, 1], [5, 0, 0, 0, 0], [1, 0, 9, 0, 4000]])
CODER = RansModels.of(np.stack([normalised(row) for row in WEIGHTS.astype(np.int64)]))


def drawn(seed: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    source = np.random.default_rng(seed)
    models = source.integers(0, len(WEIGHTS), size).astype(np.uint8)
    shares = WEIGHTS / WEIGHTS.sum(axis=1, keepdims=True)
    symbols = np.array([source.choice(5, p=shares[model]) for model in models], dtype=np.uint8)
    return symbols, models


@given(st.integers(0, 2**32 - 1), st.integers(0, 400))
def test_any_symbols_survive(seed: int, size: int) -> None:
    symbols, models = drawn(seed, size)
    payload = encode_symbols(symbols, models, CODER)
    assert np.array_equal(decode_symbols(memoryview(payload), models, CODER), symbols)


def test_length_is_within_a_thousandth_of_the_models_entropy() -> None:
    symbols, models = drawn(1, 40_000)
    payload = encode_symbols(symbols, models, CODER)
    information = -np.log2(CODER.frequencies[models, symbols] / TOTAL).sum() / 8
    assert len(payload) <= 1.001 * information + STATE_BYTES


@given(st.binary(max_size=120), st.integers(0, 60))
def test_arbitrary_bytes_are_a_canonical_stream_or_refused(payload: bytes, size: int) -> None:
    models = (np.arange(size) % len(WEIGHTS)).astype(np.uint8)
    try:
        symbols = decode_symbols(memoryview(payload), models, CODER)
    except CodecError:
        return
    assert encode_symbols(symbols, models, CODER) == payload


@given(st.integers(0, 2**32 - 1), st.data())
def test_truncated_streams_are_refused(seed: int, data: st.DataObject) -> None:
    symbols, models = drawn(seed, 200)
    payload = encode_symbols(symbols, models, CODER)
    cut = data.draw(st.integers(0, len(payload) - 1))
    with pytest.raises(CodecError):
        decode_symbols(memoryview(payload[:cut]), models, CODER)


def test_symbols_foreign_to_their_model_are_refused() -> None:
    with pytest.raises(CodecError):
        encode_symbols(np.array([1], dtype=np.uint8), np.array([2], dtype=np.uint8), CODER)


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=256))
def test_normalised_frequencies_sum_up_and_lose_nothing(counts: list[int]) -> None:
    array = np.array(counts, dtype=np.int64)
    if not array.any():
        with pytest.raises(CodecError):
            normalised(array)
        return
    frequencies = normalised(array)
    assert int(frequencies.sum()) == TOTAL
    assert np.array_equal(frequencies > 0, array > 0)


def test_models_of_another_sum_are_refused() -> None:
    with pytest.raises(CodecError):
        RansModels.of(np.array([[1, 2, 3]], dtype=np.uint16))

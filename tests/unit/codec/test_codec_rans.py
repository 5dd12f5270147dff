"""The entropy coder: close to the entropy, exact, and strict about its end."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scout_core.codec.rans import (
    NOT_CODED,
    STATE_BYTES,
    TOTAL,
    RansModels,
    decode_rows,
    decode_runs,
    encode_rows,
    encode_runs,
    normalised,
)
from scout_core.errors import CodecError
from tests.unit.codec.entropy_definition import defined_stream

WEIGHTS = np.array([[1000, 200, 50, 3, 1], [1, 1, 1, 1, 1], [5, 0, 0, 0, 0], [1, 0, 9, 0, 4000]])
FREQUENCIES = np.stack([normalised(row) for row in WEIGHTS.astype(np.int64)])
CODER = RansModels.of(FREQUENCIES)
KNOWN_STREAM = "e4e668324a0dc300658f7d00e047060051340600ecae1f0085510600134b0600"


def drawn(seed: int, rows: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    source = np.random.default_rng(seed)
    models = source.integers(0, len(WEIGHTS), rows).astype(np.uint8)
    shares = WEIGHTS / WEIGHTS.sum(axis=1, keepdims=True)
    symbols = [source.choice(5, p=shares[model], size=length) for model in models]
    return np.array(symbols, dtype=np.uint8).reshape(rows, length), models


@given(st.integers(0, 2**32 - 1), st.integers(0, 9), st.integers(1, 40))
def test_any_symbols_survive(seed: int, rows: int, length: int) -> None:
    symbols, models = drawn(seed, rows, length)
    payload = encode_rows(symbols, models, CODER)
    assert np.array_equal(decode_rows(payload, models, length, CODER), symbols)


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 40))
def test_the_stream_is_the_defined_one_bit_for_bit(seed: int, rows: int, length: int) -> None:
    symbols, models = drawn(seed, rows, length)
    assert encode_rows(symbols, models, CODER) == defined_stream(list(symbols), models, FREQUENCIES)


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.lists(st.integers(1, 20), min_size=1))
def test_runs_are_rows_of_their_own_and_some_are_left_out(
    seed: int, lines: int, lengths: list[int]
) -> None:
    source = np.random.default_rng(seed)
    bounds = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    symbols = np.zeros((lines, int(bounds[-1])), dtype=np.uint8)
    models = np.full((lines, len(lengths)), NOT_CODED, dtype=np.uint8)
    pieces: list[np.ndarray] = []
    for line in range(lines):
        for run, length in enumerate(lengths):
            if source.random() < 0.7:
                piece, (model,) = drawn(int(source.integers(1 << 32)), 1, length)
                models[line, run] = model
                symbols[line, bounds[run] : bounds[run + 1]] = piece[0]
                pieces.append(piece[0])
    payload = encode_runs(symbols, models, bounds, CODER)
    coded = models[models != NOT_CODED]
    assert payload == defined_stream(pieces, coded, FREQUENCIES)
    assert np.array_equal(decode_runs(payload, models, bounds, CODER), symbols)


@given(st.lists(st.integers(1, 4095), min_size=1, max_size=40), st.integers(0, 2**32 - 1))
def test_reciprocals_divide_exactly_whatever_the_frequency(cuts: list[int], seed: int) -> None:
    edges = [0, *sorted(set(cuts)), TOTAL]
    frequencies = np.diff(edges).astype(np.uint16)[None]
    coder = RansModels.of(frequencies)
    source = np.random.default_rng(seed)
    symbols = source.choice(frequencies.size, p=frequencies[0] / TOTAL, size=(1, 500))
    symbols = symbols.astype(np.uint8)
    models = np.zeros(1, dtype=np.uint8)
    payload = encode_rows(symbols, models, coder)
    assert np.array_equal(decode_rows(payload, models, 500, coder), symbols)


def test_length_is_within_a_thousandth_of_the_models_entropy() -> None:
    symbols, models = drawn(1, 100, 400)
    payload = encode_rows(symbols, models, CODER)
    information = -np.log2(FREQUENCIES[models[:, None], symbols] / TOTAL).sum() / 8
    assert len(payload) <= 1.001 * information + STATE_BYTES


def test_a_known_stream_has_its_bytes() -> None:
    symbols = np.array([[0, 1, 2, 0, 0, 1, 0, 0, 3, 0], [4, 3, 2, 1, 0, 4, 3, 2, 1, 0]], np.uint8)
    payload = encode_rows(symbols, np.array([0, 1], dtype=np.uint8), CODER)
    assert payload.hex() == KNOWN_STREAM


@given(st.binary(max_size=120), st.integers(0, 6), st.integers(1, 12))
def test_arbitrary_bytes_are_a_canonical_stream_or_refused(
    payload: bytes, rows: int, length: int
) -> None:
    models = (np.arange(rows) % len(WEIGHTS)).astype(np.uint8)
    try:
        symbols = decode_rows(payload, models, length, CODER)
    except CodecError:
        return
    assert encode_rows(symbols, models, CODER) == payload


@given(st.integers(0, 2**32 - 1), st.data())
def test_truncated_streams_are_refused(seed: int, data: st.DataObject) -> None:
    symbols, models = drawn(seed, 10, 20)
    payload = encode_rows(symbols, models, CODER)
    cut = data.draw(st.integers(0, len(payload) - 1))
    with pytest.raises(CodecError):
        decode_rows(payload[:cut], models, 20, CODER)


def test_symbols_foreign_to_their_model_are_refused() -> None:
    with pytest.raises(CodecError):
        encode_rows(np.array([[1]], dtype=np.uint8), np.array([2], dtype=np.uint8), CODER)


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

"""The loops and products of the transform codec against plain numpy, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from scout_core.codec import transform_kernels as kernels
from scout_core.codec.integer_product import by_floats, integer_product
from scout_core.codec.rans import NOT_CODED
from scout_core.codec.workers import run_each

LAYERS, HEADS, HEAD_DIM = 2, 3, 8
WIDTH = LAYERS * HEADS * HEAD_DIM

Floats = NDArray[np.float32]
Frame = tuple[Floats, Floats, Floats, NDArray[np.int64]]


def frame_of(source: np.random.Generator, positions: int) -> Frame:
    angles = source.uniform(0, 7, (positions, HEAD_DIM // 2))
    origins = source.standard_normal((3, WIDTH)).astype(np.float32)
    origin_of = source.integers(-1, 3, positions)
    cosines, sines = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    return cosines, sines, origins, origin_of


def bf16_of(values: Floats) -> NDArray[np.uint16]:
    rounded = torch.from_numpy(values).to(torch.bfloat16)
    return rounded.view(torch.int16).numpy().view(np.uint16)


@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.integers(0, 1))
def test_rows_are_gathered_as_defined(seed: int, positions: int, kind: int) -> None:
    source = np.random.default_rng(seed)
    shape = (LAYERS + 1, 2, HEADS, positions, HEAD_DIM)
    elements = source.standard_normal(shape).astype(np.float32)
    words = bf16_of(elements)
    exact = (words.astype(np.uint32) << 16).view(np.float32)[1:, kind]
    cosines, sines, origins, origin_of = frame = frame_of(source, positions)
    first, second = np.split(exact, 2, axis=-1)
    turned = np.concatenate(
        (first * cosines + second * sines, second * cosines - first * sines), axis=-1
    )
    expected = turned.transpose(2, 0, 1, 3).reshape(positions, WIDTH) - origins[origin_of]
    expected[origin_of < 0] = 0
    rows = np.empty((positions, WIDTH), dtype=np.float32)
    order = source.permutation(positions)
    kernels.gather_rows(words, (1, kind, order), frame, rows)
    assert np.array_equal(rows, expected[order])


@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.integers(0, 1))
def test_rows_are_scattered_as_defined(seed: int, positions: int, kind: int) -> None:
    source = np.random.default_rng(seed)
    sums = source.integers(-(1 << 27), 1 << 27, (2, positions, WIDTH)).astype(np.int32)
    units = source.uniform(0, 1e-6, positions).astype(np.float32)
    cosines, sines, origins, origin_of = frame = frame_of(source, positions)
    word = sums[0].astype(np.float32) * np.float32(256) + sums[1].astype(np.float32)
    rows = word * units[:, None] + origins[np.maximum(origin_of, 0)]
    first, second = np.split(rows.reshape(positions, LAYERS, HEADS, HEAD_DIM), 2, axis=-1)
    cosines, sines = cosines[:, None, None], sines[:, None, None]
    turned = np.concatenate(
        (first * cosines - second * sines, second * cosines + first * sines), axis=-1
    )
    words = np.zeros((LAYERS + 1, 2, HEADS, positions, HEAD_DIM), dtype=np.uint16)
    order = source.permutation(positions)
    ordered = np.ascontiguousarray(sums[:, order])
    kernels.scatter_rows(ordered, units[order], frame, words, (1, kind, order))
    assert np.array_equal(words[1:, kind], bf16_of(turned.transpose(1, 2, 0, 3)))
    assert not words[0].any()
    assert not words[:, 1 - kind].any()


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.3, 30.0, 200.0, 1e6]))
def test_symbols_and_escapes_are_the_defined_ones_and_come_back(seed: int, spread: float) -> None:
    source = np.random.default_rng(seed)
    values = (source.standard_normal((5, 19)) * spread).astype(np.float32)
    scales = np.array([0.7, 0.35, 0.1], dtype=np.float32)
    bounds = np.array([0, 9, 10, 19])
    models = source.choice(np.array([0, 1, NOT_CODED], dtype=np.uint8), (5, 3))
    lengths = np.diff(bounds)
    model_of = np.repeat(models, lengths, axis=1)
    scaled = values * np.repeat(scales, lengths)
    integers = np.floor(np.abs(scaled) + np.float32(kernels.ROUNDING)) * np.sign(scaled)
    integers[model_of == NOT_CODED] = 0
    expected = np.where(np.abs(integers) > 127, kernels.ESCAPE, integers + kernels.ZERO)
    symbols = np.full(values.shape, kernels.ZERO, dtype=np.uint8)
    found = int(kernels.quantise(values, scales, (models, bounds), symbols))
    assert np.array_equal(symbols, expected)
    escapes = np.empty(found, dtype=np.int32)
    kernels.collect_escapes(values, scales, (models, bounds), symbols, escapes)
    assert np.array_equal(escapes, integers[np.abs(integers) > 127])
    shifts, rows = np.array([0.25, 0.5], np.float32), np.full(5, 3.0, np.float32)
    decoded = np.empty(values.shape, dtype=np.float32)
    runs = (models, bounds)
    assert kernels.dequantise(symbols, runs, shifts, rows, escapes, decoded) == found
    ones = integers * np.where(model_of == 0, np.float32(1.25), np.float32(1.5))
    shifted = np.where(np.abs(integers) == 1, ones, integers)
    assert np.array_equal(decoded, shifted.astype(np.float32) * np.float32(3))


def test_a_value_beyond_bounds_or_no_number_is_reported() -> None:
    scales, symbols = np.ones(1, dtype=np.float32), np.empty((1, 2), np.uint8)
    runs = (np.zeros((1, 1), dtype=np.uint8), np.array([0, 2]))
    for bad in (2.0**30, -np.inf, np.nan):
        values = np.array([[1.0, bad]], dtype=np.float32)
        assert kernels.quantise(values, scales, runs, symbols) == -1


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1e-20, 1.0, 1e9]))
def test_planes_are_sixteen_bits_of_each_positions_largest(seed: int, spread: float) -> None:
    source = np.random.default_rng(seed)
    values = (source.standard_normal((6, 11)) * spread).astype(np.float32)
    planes = np.empty((6, 2, 11), dtype=np.int8)
    units = np.empty(11, dtype=np.float32)
    kernels.split_planes(values, planes, units)
    words = planes[:, 0].astype(np.int64) * 256 + planes[:, 1]
    largest = np.abs(values).max(axis=0)
    limit = np.float32(kernels.LARGEST_WORD)
    assert np.array_equal(units, largest / limit)
    divisor = np.where(largest > 0, largest, np.float32(1))
    assert np.array_equal(words, np.rint(values * (limit / divisor)).astype(np.int64))


@pytest.mark.parametrize("terms", [0, 1, 2, 3, 7, 16, 65, 960, 1024, 2561])
@pytest.mark.parametrize("rows", [1, 2, 6, 40])
@pytest.mark.parametrize("columns", [1, 4, 33])
def test_integer_products_are_exact_by_either_arithmetic(
    terms: int, rows: int, columns: int
) -> None:
    generator = torch.Generator().manual_seed(terms)
    left = torch.randint(-128, 128, (terms, rows), dtype=torch.int8, generator=generator).T
    right = torch.randint(-127, 128, (columns, terms), dtype=torch.int8, generator=generator).T
    left[0], right[:, 0] = -128, 127
    exact = (left.long() @ right.long()).int()
    assert torch.equal(integer_product(left, right), exact)
    assert torch.equal(by_floats(left, right), exact)


def test_workers_multiply_alone_and_leave_other_threads_their_count() -> None:
    before = torch.get_num_threads()
    assert run_each(lambda index: (index, torch.get_num_threads()), 5, 1 << 20) == [
        (index, 1) for index in range(5)
    ]
    assert torch.get_num_threads() == before

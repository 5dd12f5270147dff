"""The compiled kernels write and read exactly what the reference does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from scout_core.codec import group_reference
from scout_core.codec.compiled import run_sliced
from scout_core.codec.group_layout import GroupLayout, GroupSections
from scout_core.codec.groups import (
    dequantise_compiled,
    quantise_compiled,
)
from scout_core.geometry import KvGeometry


def payload_bytes(layout: GroupLayout, with_fine: bool) -> NDArray[np.uint8]:
    return np.zeros(layout.coarse_bytes + with_fine * layout.fine_bytes, dtype=np.uint8)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    positions=st.integers(1, 70),
    head_dim=st.sampled_from([64, 128]),
    with_fine=st.booleans(),
    scale=st.sampled_from([0.0, 1e-38, 1e-30, 1.0, 1e30, 5e37]),
    nonfinite=st.booleans(),
)
def test_kernels_and_reference_agree_bit_for_bit(
    seed: int, positions: int, head_dim: int, with_fine: bool, scale: float, nonfinite: bool
) -> None:
    source = np.random.default_rng(seed)
    layout = GroupLayout(KvGeometry(layers=2, kv_heads=2, head_dim=head_dim), positions)
    values = (source.standard_normal(layout.geometry.shape(positions)) * scale).astype(np.float32)
    bits = (values.view(np.uint32) >> 16).astype(np.uint16)
    if nonfinite:
        bits.flat[source.integers(bits.size)] |= 0x7F80
    expected, actual = payload_bytes(layout, with_fine), payload_bytes(layout, with_fine)
    sections = GroupSections.over(expected, layout)
    accepted = group_reference.quantise(bits, sections, layout.group_channels)
    assert quantise_compiled(bits, GroupSections.over(actual, layout), threads=2) == accepted
    assert not (nonfinite and accepted)
    if not accepted:
        return
    assert np.array_equal(actual, expected)
    decoded, redecoded = np.empty_like(bits), np.empty_like(bits)
    group_reference.dequantise(sections, decoded)
    dequantise_compiled(sections, redecoded, threads=2)
    assert np.array_equal(redecoded, decoded)


@pytest.mark.parametrize("threads", [1, 2, 3, 16])
def test_slices_cover_every_item_once(threads: int) -> None:
    seen = np.zeros(7, dtype=np.int64)

    def task(first: int, last: int) -> bool:
        seen[first:last] += 1
        return True

    assert run_sliced(task, 7, 1 << 30, threads)
    assert seen.tolist() == [1] * 7


def test_one_failing_slice_fails_the_whole() -> None:
    assert not run_sliced(lambda first, last: last < 7, 7, 1 << 30, 3)

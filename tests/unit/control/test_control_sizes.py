"""Planned payload bytes."""

from __future__ import annotations

import pytest

from scout_core.control.sizes import GeometrySizes, index_bound_bytes
from scout_core.geometry import KvGeometry
from scout_core.modes import Mode

QWEN_3B = KvGeometry(layers=36, kv_heads=2, head_dim=128)


def test_the_papers_selection_needs_at_most_23_bytes_or_the_bitmap() -> None:
    # log2 C(170, 84) is 167 bits; the bitmap 22 bytes; the paper sends 336 bytes.
    assert index_bound_bytes(170, 84) <= 24


@pytest.mark.parametrize("kept", [1, 8191, 16384])
def test_an_index_never_exceeds_the_bitmap_by_more_than_its_header(kept: int) -> None:
    assert index_bound_bytes(16_384, kept) <= 2 + 2048


def test_kv_bytes_follow_the_shape() -> None:
    sizes = GeometrySizes(QWEN_3B, vocabulary=151_936)
    exact = 170 * 36_864
    assert sizes.kv_bytes(Mode.KV_BF16, 170) == pytest.approx(exact, abs=64)
    assert 1.8 < exact / sizes.kv_bytes(Mode.KV_INT8, 170) < 2.0
    assert 3.4 < exact / sizes.kv_bytes(Mode.KV_INT4, 170) < 4.0
    assert sizes.kv_bytes(Mode.SCOUT, 170) == 0


def test_token_ids_are_packed_to_the_bits_of_the_vocabulary() -> None:
    assert GeometrySizes(QWEN_3B, vocabulary=151_936).token_bytes(170) == 383 + 16

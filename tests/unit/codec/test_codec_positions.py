"""The index codec: every set survives, within its bound, and strangers' bytes are refused."""

from __future__ import annotations

import itertools
import random
import time
from math import ceil, comb, log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scout_core.codec.enumeration import positions_of, rank_of
from scout_core.codec.positions import (
    MAX_UNIVERSE,
    bound_bytes,
    decode_positions,
    encode_positions,
)
from scout_core.errors import PositionsError


@st.composite
def position_sets(draw: st.DrawFn) -> tuple[list[int], int]:
    """A sorted set and its universe; sometimes scattered, sometimes made of runs."""
    universe = draw(st.integers(1, 700))
    if draw(st.booleans()):
        return sorted(draw(st.sets(st.integers(0, universe - 1)))), universe
    members: set[int] = set()
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, universe - 1))
        members.update(range(start, min(universe, start + draw(st.integers(1, 90)))))
    return sorted(members), universe


@given(position_sets())
def test_any_set_survives_and_stays_within_bound_and_bitmap(case: tuple[list[int], int]) -> None:
    members, universe = case
    payload = encode_positions(members, universe)
    assert decode_positions(payload, universe, len(members)).tolist() == members
    information = log2(comb(universe, len(members)))
    assert len(payload) <= 2 + 1.05 * information / 8
    assert len(payload) <= ceil(information / 8) == bound_bytes(universe, len(members))
    assert len(payload) <= ceil(universe / 8)


def test_every_set_of_small_universes_has_its_own_encoding() -> None:
    for universe in range(11):
        for count in range(universe + 1):
            payloads: set[bytes] = set()
            for members in itertools.combinations(range(universe), count):
                payload = encode_positions(members, universe)
                payloads.add(payload)
                assert decode_positions(payload, universe, count).tolist() == list(members)
            assert len(payloads) == comb(universe, count)


@given(st.data())
def test_every_rank_of_a_universe_beyond_one_leaf_names_one_set(data: st.DataObject) -> None:
    universe = data.draw(st.integers(60, 400))
    count = data.draw(st.integers(0, universe))
    rank = data.draw(st.integers(0, comb(universe, count) - 1))
    members = positions_of(rank, universe, count)
    assert len(members) == count
    assert members == sorted(set(members))
    assert rank_of(members, universe) == rank


def test_half_of_170_positions_takes_at_most_23_bytes() -> None:
    members = sorted(random.Random(1).sample(range(170), 84))
    assert len(encode_positions(members, 170)) <= 23


def test_clustered_sets_take_under_a_third_of_the_bound() -> None:
    members = [start + offset for start in range(0, 4096, 320) for offset in range(32)]
    assert len(encode_positions(members, 4096)) * 3 < bound_bytes(4096, len(members))


def test_a_tenth_of_32768_positions_is_coded_in_reasonable_time() -> None:
    members = sorted(random.Random(2).sample(range(32768), 3277))
    started = time.perf_counter()
    payload = encode_positions(members, 32768)
    decoded = decode_positions(payload, 32768, 3277)
    elapsed_s = time.perf_counter() - started
    assert decoded.tolist() == members
    assert elapsed_s < 1.0  # both ways; 0.04 s measured on one idle core, the rest is for busy ones


@given(position_sets(), st.data())
def test_damaged_payloads_decode_to_a_valid_set_or_are_refused(
    case: tuple[list[int], int], data: st.DataObject
) -> None:
    members, universe = case
    payload = bytearray(encode_positions(members, universe))
    kind = data.draw(st.sampled_from(["flip", "truncate", "extend"]))
    if kind == "flip" and payload:
        bit = data.draw(st.integers(0, 8 * len(payload) - 1))
        payload[bit // 8] ^= 1 << (bit % 8)
    elif kind == "truncate":
        del payload[data.draw(st.integers(0, len(payload))) :]
    else:
        payload += data.draw(st.binary(min_size=1, max_size=4))
    damaged = bytes(payload)
    try:
        decoded = decode_positions(damaged, universe, len(members)).tolist()
    except PositionsError:
        return
    assert decoded == sorted(set(decoded))
    assert len(decoded) == len(members)
    assert all(0 <= position < universe for position in decoded)
    assert encode_positions(decoded, universe) == damaged  # one set, one encoding


@given(st.binary(max_size=40), st.integers(0, 300), st.integers(0, 300))
def test_arbitrary_bytes_are_a_canonical_encoding_or_refused(
    payload: bytes, universe: int, count: int
) -> None:
    try:
        decoded = decode_positions(payload, universe, count)
    except PositionsError:
        return
    assert encode_positions(decoded, universe) == payload


@pytest.mark.parametrize(
    ("members", "universe"),
    [
        ([3, 2], 10),
        ([2, 2], 10),
        ([-1, 2], 10),
        ([2, 10], 10),
        ([0], 0),
        ([0], MAX_UNIVERSE + 1),
        (np.zeros((2, 2), dtype=np.int64), 10),
        (np.array([0.5]), 10),
    ],
)
def test_improper_positions_are_refused(members: list[int], universe: int) -> None:
    with pytest.raises(PositionsError):
        encode_positions(members, universe)


@pytest.mark.parametrize(("universe", "count"), [(10, 11), (-1, 0), (10, -1), (1 << 40, 3)])
def test_impossible_counts_are_refused_before_any_work(universe: int, count: int) -> None:
    with pytest.raises(PositionsError):
        decode_positions(b"", universe, count)


@pytest.mark.parametrize(
    ("members", "universe", "payload"),
    [
        ([], 10, ""),
        ([0, 1, 2], 3, ""),
        ([0, 2, 4, 6], 8, "14"),
        ([5, 6, 7, 8, 50, 51, 52, 53], 100, "31ba01"),
        ([3, 17, 40, 41, 80, 99, 120, 150], 170, "b532dd8a8206"),
    ],
)
def test_the_readme_vectors_hold(members: list[int], universe: int, payload: str) -> None:
    assert encode_positions(members, universe).hex() == payload

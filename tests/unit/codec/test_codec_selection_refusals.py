"""No selection that is unsorted, repeated or out of range gets onto the wire or off it."""

from __future__ import annotations

from itertools import combinations, product
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scout_core.codec.positions import bound_bytes, decode_positions, encode_positions
from scout_core.errors import PositionsError

UNIVERSE = 10


@pytest.mark.parametrize(
    ("positions", "says"),
    [
        ([3, 2], "strictly increasing; sort"),
        ([0, 5, 4, 9], "strictly increasing; sort"),
        ([9, 0], "strictly increasing; sort"),
        ([2, 2], "deduplicate"),
        ([0, 1, 1, 2], "deduplicate"),
        ([-1], r"must lie in \[0, 10\)"),
        ([-1, 2], r"must lie in \[0, 10\)"),
        ([UNIVERSE], r"must lie in \[0, 10\)"),
        ([2, UNIVERSE], r"must lie in \[0, 10\)"),
        ([0, 1 << 62], r"must lie in \[0, 10\)"),
        ([0.0, 1.0], "sequence of integers"),
        ([[0, 1], [2, 3]], "sequence of integers"),
        ([True, False], "sequence of integers"),
    ],
)
def test_an_improper_selection_is_refused_with_its_fault(positions: list[int], says: str) -> None:
    for given_as in (positions, np.array(positions)):
        with pytest.raises(PositionsError, match=says) as caught:
            encode_positions(given_as, UNIVERSE)
        assert caught.value.reason == "POSITIONS_INVALID"


@given(st.lists(st.integers(-2, UNIVERSE + 1), min_size=1, max_size=UNIVERSE + 2))
def test_exactly_the_ascending_unique_and_in_range_are_encoded(positions: list[int]) -> None:
    proper = positions == sorted(set(positions)) and 0 <= positions[0] <= positions[-1] < UNIVERSE
    try:
        payload = encode_positions(positions, UNIVERSE)
    except PositionsError:
        assert not proper
    else:
        assert proper
        assert decode_positions(payload, UNIVERSE, len(positions)).tolist() == positions


@st.composite
def payloads_of_plausible_size(draw: st.DrawFn) -> tuple[bytes, int, int]:
    """Bytes as a stranger would choose them: of a length that the header's figures allow."""
    universe = draw(st.integers(1, 600))
    count = draw(st.integers(0, universe))
    size = draw(st.integers(0, bound_bytes(universe, count) + 1))
    return draw(st.binary(min_size=size, max_size=size)), universe, count


@settings(max_examples=500)
@given(payloads_of_plausible_size())
def test_whatever_bytes_come_the_positions_are_ascending_unique_and_in_range(
    case: tuple[bytes, int, int],
) -> None:
    payload, universe, count = case
    try:
        decoded = decode_positions(payload, universe, count)
    except PositionsError:  # nothing else: INVALID_ARGUMENT on the wire
        return
    assert decoded.shape == (count,)
    assert np.all(np.diff(decoded) > 0)
    assert count == 0 or 0 <= decoded[0] <= decoded[-1] < universe


@pytest.mark.parametrize(
    ("universe", "count"), [*((n, k) for n in range(8) for k in range(n + 1)), (10, 5), (12, 6)]
)
def test_all_byte_strings_together_name_each_set_once_and_nothing_else(
    universe: int, count: int
) -> None:
    longest = bound_bytes(universe, count) + (universe < UNIVERSE)
    named: list[tuple[int, ...]] = []
    for size in range(longest + 1):
        for values in product(range(256), repeat=size):
            try:
                named.append(tuple(decode_positions(bytes(values), universe, count).tolist()))
            except PositionsError:
                continue
    assert len(named) == comb(universe, count)
    assert sorted(named) == list(combinations(range(universe), count))

"""Exact numbering of k-subsets: every set of ``count`` positions out of ``universe`` gets one
integer in ``[0, C(universe, count))``.

This module owns the order of the sets and nothing else: it knows neither bytes nor what the
positions mean. The order is recursive: split the universe in two halves, number the sets by how
many members fall in the left half (likeliest split first, so that ordinary sets are found after
few terms), then by the left half's number, then by the right half's. Up to ``LEAF_UNIVERSE``
positions the classical combinatorial number system (Lehmer; Knuth 7.2.1.3) is used directly.
Everything is integer arithmetic, so every host computes the same number.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from math import comb
from typing import Final

LEAF_UNIVERSE: Final = 64

_BINOMIALS: Final = tuple(
    tuple(comb(row, column) for column in range(row + 1)) for row in range(LEAF_UNIVERSE + 1)
)


def rank_of(positions: Sequence[int], universe: int) -> int:
    """The number of a strictly increasing sequence of positions in ``[0, universe)``."""
    return _rank(positions, 0, len(positions), 0, universe)


def positions_of(rank: int, universe: int, count: int) -> list[int]:
    """The strictly increasing positions whose number is ``rank`` in ``[0, C(universe, count))``."""
    found: list[int] = []
    _unrank(rank, 0, universe, count, found)
    return found


def _rank(positions: Sequence[int], first: int, last: int, start: int, universe: int) -> int:
    """Number of ``positions[first:last]`` within ``[start, start + universe)``."""
    count = last - first
    if count in (0, universe):
        return 0
    if universe <= LEAF_UNIVERSE:
        return _leaf_rank(positions[first:last], start)
    left = universe // 2
    middle = bisect_left(positions, start + left, first, last)
    before = 0
    for left_count, sets in _splits(left, universe - left, count):
        if left_count == middle - first:
            break
        before += sets
    left_rank = _rank(positions, first, middle, start, left)
    right_rank = _rank(positions, middle, last, start + left, universe - left)
    return before + left_rank * comb(universe - left, last - middle) + right_rank


def _unrank(rank: int, start: int, universe: int, count: int, found: list[int]) -> None:
    """Appends the positions of set ``rank`` within ``[start, start + universe)``."""
    if count == 0:
        return
    if count == universe:
        found.extend(range(start, start + universe))
        return
    if universe <= LEAF_UNIVERSE:
        _leaf_unrank(rank, start, universe, count, found)
        return
    left = universe // 2
    left_count = 0
    for left_count, sets in _splits(left, universe - left, count):  # noqa: B007 - read after break
        if rank < sets:
            break
        rank -= sets
    right_count = count - left_count
    left_rank, right_rank = divmod(rank, comb(universe - left, right_count))
    _unrank(left_rank, start, left, left_count, found)
    _unrank(right_rank, start + left, universe - left, right_count, found)


def _splits(left: int, right: int, count: int) -> Iterator[tuple[int, int]]:
    """Each possible left count with its number of sets, from the likeliest outwards."""
    lowest, highest = max(0, count - right), min(left, count)
    centre = min(max(count * left // (left + right), lowest), highest)
    sets = comb(left, centre) * comb(right, count - centre)
    yield centre, sets
    above, above_sets = centre, sets
    below, below_sets = centre, sets
    while above < highest or below > lowest:
        if above < highest:
            above_sets = above_sets * ((left - above) * (count - above))
            above_sets //= (above + 1) * (right - count + above + 1)
            above += 1
            yield above, above_sets
        if below > lowest:
            below_sets = below_sets * (below * (right - count + below))
            below_sets //= (left - below + 1) * (count - below + 1)
            below -= 1
            yield below, below_sets


def _leaf_rank(members: Sequence[int], start: int) -> int:
    """Combinatorial number system: the sum of C(position, index + 1)."""
    rank = 0
    for index, position in enumerate(members):
        offset = position - start
        if offset > index:
            rank += _BINOMIALS[offset][index + 1]
    return rank


def _leaf_unrank(rank: int, start: int, universe: int, count: int, found: list[int]) -> None:
    """Inverse of ``_leaf_rank``: takes the largest fitting binomial, highest position first."""
    members: list[int] = []
    offset = universe - 1
    for size in range(count, 0, -1):
        while offset >= size and _BINOMIALS[offset][size] > rank:
            offset -= 1
        if offset >= size:
            rank -= _BINOMIALS[offset][size]
        members.append(start + offset)
        offset -= 1
    found.extend(reversed(members))

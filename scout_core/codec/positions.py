"""Position sets as bytes: the index codec of scout mode.

Owns the byte format of a selection. Universe and count travel outside (block header, session
open), so that the payload is the set and nothing else; there is no kind byte either, the length
tells the kind:

- *uniform*: the set's number among all C(n, k) sets, in exactly ceil(log2 C(n, k) / 8) bytes;
- *runs*: used when strictly shorter, as it is for clustered sets. A set of m runs is a choice of
  m - 1 cuts among the k - 1 joints between its members, and of m of the n - k + 1 places between
  (and around) its non-members; both choices are numbered the same way and m is put in front.

A set therefore never costs more than its information bound rounded up to a byte, hence never more
than a bitmap. Every set has exactly one encoding and every payload at most one meaning.
The source paper sends int32 indices (4 k bytes); see README.md for sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scout_core.codec.enumeration import positions_of, rank_of
from scout_core.errors import PositionsError

MAX_UNIVERSE: Final = 1 << 18
"""Longest context whose positions can be coded; bounds the work a stranger's bytes can cause."""


def encode_positions(positions: Sequence[int] | NDArray[np.int64], universe: int) -> bytes:
    """Codes a strictly increasing sequence of positions in ``[0, universe)``.

    Raises:
        PositionsError: out of range, unsorted or repeated positions, or universe too large.
    """
    members = _checked(positions, universe)
    count = len(members)
    size = bound_bytes(universe, count)
    if count in (0, universe):
        return b""
    by_runs = _encode_runs(members, universe, size)
    if by_runs is not None:
        return by_runs
    return rank_of(members, universe).to_bytes(size, "little")


def decode_positions(payload: bytes, universe: int, count: int) -> NDArray[np.int64]:
    """Inverse of ``encode_positions``; returns ``count`` sorted positions, shape ``[count]``.

    Raises:
        PositionsError: the payload is not the encoding of any such set, or count is impossible.
    """
    size = bound_bytes(universe, count)
    if len(payload) > size:
        raise PositionsError(
            f"Selection of {count} out of {universe} takes at most {size} bytes, got "
            f"{len(payload)}; send exactly what encode_positions returned.",
        )
    if count in (0, universe):
        return np.arange(count, dtype=np.int64)
    value = int.from_bytes(payload, "little")
    if len(payload) < size:
        members = _decode_runs(value, len(payload), universe, count)
    else:
        if value >= comb(universe, count):
            raise _meaningless(universe, count)
        members = positions_of(value, universe, count)
        if _runs_bytes(universe, count, _run_count(members)) < size:
            raise _meaningless(universe, count)
    return np.asarray(members, dtype=np.int64)


def bound_bytes(universe: int, count: int) -> int:
    """ceil(log2 C(universe, count) / 8): the most a set of this size can cost.

    Raises:
        PositionsError: universe or count impossible.
    """
    if not 0 <= universe <= MAX_UNIVERSE:
        raise PositionsError(f"Universe must be in 0..{MAX_UNIVERSE} positions, got {universe}.")
    if not 0 <= count <= universe:
        raise PositionsError(f"Cannot select {count} of {universe} positions.")
    return _bytes_for(comb(universe, count))


def is_runs_payload(payload: bytes, universe: int, count: int) -> bool:
    """Whether a payload uses the *runs* kind (for studies; decoding does not need it)."""
    return len(payload) < bound_bytes(universe, count)


def _checked(positions: Sequence[int] | NDArray[np.int64], universe: int) -> list[int]:
    array = np.asarray(positions)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise PositionsError("Positions must be a one-dimensional sequence of integers.")
    members: list[int] = array.tolist()
    if not members:
        return members
    if np.any(array[1:] <= array[:-1]):
        raise PositionsError("Positions must be strictly increasing; sort and deduplicate them.")
    if members[0] < 0 or members[-1] >= universe:
        raise PositionsError(f"Positions must lie in [0, {universe}).", first=members[0])
    return members


def _run_count(members: Sequence[int]) -> int:
    array = np.asarray(members)
    return 1 + int(np.count_nonzero(array[1:] != array[:-1] + 1))


def _runs_total(universe: int, count: int, runs: int) -> int:
    """How many (run count, set) values a set of ``runs`` runs has to tell apart."""
    widths = min(count, universe - count + 1)
    return comb(count - 1, runs - 1) * comb(universe - count + 1, runs) * widths


def _runs_bytes(universe: int, count: int, runs: int) -> int:
    return _bytes_for(_runs_total(universe, count, runs))


def _encode_runs(members: list[int], universe: int, limit: int) -> bytes | None:
    """The runs kind, or None when it takes ``limit`` bytes or more."""
    count = len(members)
    runs = _run_count(members)
    size = _runs_bytes(universe, count, runs)
    if size >= limit:
        return None
    array = np.asarray(members)
    cuts = np.flatnonzero(array[1:] != array[:-1] + 1)
    starts = array[np.concatenate(([0], cuts + 1))]
    lengths_before = np.concatenate(([0], cuts + 1))
    places = starts - lengths_before  # non-members before each run
    cut_rank = rank_of(cuts.tolist(), count - 1)
    place_rank = rank_of(places.tolist(), universe - count + 1)
    value = cut_rank * comb(universe - count + 1, runs) + place_rank
    value = value * min(count, universe - count + 1) + (runs - 1)
    return value.to_bytes(size, "little")


def _decode_runs(value: int, size: int, universe: int, count: int) -> list[int]:
    free = universe - count + 1
    value, runs_less_one = divmod(value, min(count, free))
    runs = runs_less_one + 1
    places_total = comb(free, runs)
    cut_rank, place_rank = divmod(value, places_total)
    if size != _runs_bytes(universe, count, runs) or cut_rank >= comb(count - 1, runs - 1):
        raise _meaningless(universe, count)
    cuts = np.asarray(positions_of(cut_rank, count - 1, runs - 1), dtype=np.int64)
    places = np.asarray(positions_of(place_rank, free, runs), dtype=np.int64)
    members = np.arange(count, dtype=np.int64)
    run_of_member = np.searchsorted(cuts, members, side="left")
    decoded: list[int] = (members + places[run_of_member]).tolist()
    return decoded


def _bytes_for(values: int) -> int:
    """Bytes that tell ``values`` alternatives apart."""
    return ((values - 1).bit_length() + 7) // 8


def _meaningless(universe: int, count: int) -> PositionsError:
    return PositionsError(
        f"These bytes are no selection of {count} out of {universe} positions; "
        "send exactly what encode_positions returned for that universe and count.",
    )

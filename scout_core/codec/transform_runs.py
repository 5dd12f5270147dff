"""Grades: how much coarser or finer than its payload's level each position is coded.

Owns their numbers, their bytes, and the order they bring into a tile. A grade counts levels, so 4
of them double the step, as 4 entropy classes are one octave of deviation over step: a grade of g
takes exactly g from the class of every coefficient of its position. The positions of a tile are
coded from the lowest (finest) grade to the highest, those of one grade in their own order, so that
the coefficients of a grade lie side by side, a run under one model; a coefficient that is sent at
one grade is sent at all finer ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from scout_core.codec.transform_basis import CLASSES_PER_OCTAVE
from scout_core.errors import CodecError

FINEST_GRADE: Final = -8
COARSEST_GRADE: Final = 7
LEVELS_PER_OCTAVE: Final = CLASSES_PER_OCTAVE
"""Levels that double the step; as many as classes, or a grade would not be whole classes."""

Grades = NDArray[np.int8]


def checked_grades(grades: Sequence[int] | NDArray[np.integer], positions: int) -> Grades:
    """One grade a position.

    Raises:
        CodecError: another number of them, or one out of range.
    """
    given = np.asarray(grades, dtype=np.int64)
    if given.shape != (positions,):
        raise CodecError(f"transform: {positions} positions need as many grades, not {given.size}.")
    if given.size and not FINEST_GRADE <= int(given.min()) <= int(given.max()) <= COARSEST_GRADE:
        raise CodecError(f"transform: grades must be in {FINEST_GRADE}..{COARSEST_GRADE}.")
    return given.astype(np.int8)


def grade_bytes(positions: int) -> int:
    """Bytes of the grades of so many positions."""
    return (positions + 1) // 2


def packed_grades(grades: Grades) -> bytes:
    """A nibble each, the grade less the finest one; the first position in the low one."""
    nibbles = np.zeros(2 * grade_bytes(grades.size), dtype=np.uint8)
    nibbles[: grades.size] = (grades.astype(np.int64) - FINEST_GRADE).astype(np.uint8)
    return (nibbles[::2] | (nibbles[1::2] << 4)).tobytes()


def unpacked_grades(packed: bytes | memoryview, positions: int) -> Grades:
    """Inverse of ``packed_grades``.

    Raises:
        CodecError: a nibble beyond the last position is not 0.
    """
    pairs = np.frombuffer(packed, dtype=np.uint8)
    nibbles = np.stack((pairs & 15, pairs >> 4), axis=1).reshape(-1).astype(np.int8)
    if nibbles[positions:].any():
        raise CodecError("transform: more grades than positions.")
    return nibbles[:positions] + np.int8(FINEST_GRADE)


@dataclass(frozen=True, slots=True)
class TileRuns:
    """The positions of one tile in the order in which they are coded."""

    order: NDArray[np.int64]
    """``[positions of the tile]``: each one's place in the block."""
    grades: NDArray[np.int64]
    """``[runs]``, ascending."""
    bounds: NDArray[np.int64]
    """``[runs + 1]``: run r is ``order[bounds[r] : bounds[r + 1]]``."""

    @classmethod
    def of(cls, tile: slice, grades: Grades | None) -> Self:
        """The order that the grades of a block's positions bring into a tile; without grades one
        run at grade 0."""
        places = np.arange(tile.start, tile.stop, dtype=np.int64)
        if grades is None:
            bounds = np.array([0, places.size], dtype=np.int64)
            return cls(places, np.zeros(1, dtype=np.int64), bounds)
        inside = grades[tile].astype(np.int64)
        found, counts = np.unique(inside, return_counts=True)
        bounds = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
        return cls(places[np.argsort(inside, kind="stable")], found, bounds)

    @property
    def factors(self) -> NDArray[np.float64]:
        """``[runs]``: each run's step over that of the payload's level."""
        return 2.0 ** (self.grades / LEVELS_PER_OCTAVE)

    @property
    def unit_factors(self) -> NDArray[np.float32]:
        """The same for every position, ``[positions of the tile]``."""
        return np.repeat(self.factors, np.diff(self.bounds)).astype(np.float32)

"""The bytes of the ``transform`` codec, taken apart and put together.

Owns sizes and bounds; knows no arithmetic. P positions are cut into T = ceil(P / 256) tiles, tile i
covering [i·P // T, (i+1)·P // T). A payload is: level, the low 7 bits of a byte (below 32: step =
finest step · 2^(level / 4)), whose highest bit says that there are grades; flags u32 (bit i: the
row at absolute position i is measured from the calibrated one); the basis' tag, 4 bytes; the
grades, if any, a nibble each (``transform_runs``); for every tile, kind (keys, values) and group of
layers, in this order, the size of its piece u32; the other rows at positions 0 to 3 as one
``int8_groups`` payload, if any; the pieces. A piece is: number of escapes u32; escapes i32, in the
order of their symbols; the symbols of the sent coefficients (``rans``: a row is a coefficient's
positions of one grade), zero in rows already sent. Symbol s means s − 127; 255 an escape. At levels
from 32 on there are no grades, and a piece has no escapes and, instead of symbols, codes of fixed
widths (``fixed_widths``).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from scout_core.codec.rans import STATE_BYTES
from scout_core.codec.transform_basis import TAG_BYTES
from scout_core.codec.transform_kernels import LARGEST_VALUE
from scout_core.codec.transform_plan import FIRST_FIXED_LEVEL
from scout_core.codec.transform_runs import Grades, grade_bytes, packed_grades, unpacked_grades
from scout_core.errors import CodecError

LEVELS: Final = FIRST_FIXED_LEVEL + 64
"""Entropy-coded ones, then fixed ones."""
GRADED: Final = 0x80
"""Beside the level: grades follow."""
TILE_POSITIONS: Final = 256
_HEAD: Final = struct.Struct(f"<BI{TAG_BYTES}s")
_COUNT: Final = struct.Struct("<I")


def tiles(positions: int) -> list[slice]:
    """The tiles of a block."""
    count = -(-positions // TILE_POSITIONS)
    return [
        slice(index * positions // count, (index + 1) * positions // count)
        for index in range(count)
    ]


@dataclass(frozen=True, slots=True)
class Piece:
    """One stream of one tile."""

    escapes: NDArray[np.int32]
    coded: bytes | memoryview

    def to_bytes(self) -> bytes:
        """The piece on the wire."""
        return b"".join((_COUNT.pack(self.escapes.size), self.escapes.tobytes(), self.coded))

    @classmethod
    def parsed(cls, view: memoryview) -> Self:
        """Inverse of ``to_bytes``.

        Raises:
            CodecError: it is too short, or an escape is out of range.
        """
        if len(view) < _COUNT.size:
            raise CodecError("transform: a piece is truncated.")
        (count,) = _COUNT.unpack_from(view)
        if 4 * count > len(view) - _COUNT.size:
            raise CodecError("transform: a piece has fewer escapes than it says.")
        escapes = np.frombuffer(view, dtype="<i4", count=count, offset=_COUNT.size)
        if count and int(np.abs(escapes.astype(np.int64)).max()) > LARGEST_VALUE:
            raise CodecError("transform: an escape is beyond any value the encoder writes.")
        return cls(escapes.astype(np.int32), view[_COUNT.size + 4 * count :])


@dataclass(frozen=True, slots=True)
class PayloadHead:
    """What a payload begins with."""

    level: int
    flags: int
    tag: bytes
    """Of the basis."""
    grades: Grades | None = None
    """One a position."""

    def to_bytes(self) -> bytes:
        """The head on the wire."""
        if self.grades is None:
            return _HEAD.pack(self.level, self.flags, self.tag)
        return _HEAD.pack(self.level | GRADED, self.flags, self.tag) + packed_grades(self.grades)

    @classmethod
    def parsed(cls, view: memoryview, positions: int) -> Self:
        """Reads the head of a payload.

        Raises:
            CodecError: truncated, no such level, or grades at one that has none.
        """
        if len(view) < _HEAD.size:
            raise CodecError("transform: payload is truncated.")
        first, flags, tag = _HEAD.unpack_from(view)
        level = first & ~GRADED
        if level >= LEVELS:
            raise CodecError(f"transform: there is no level {level}.")
        if not first & GRADED:
            return cls(level, flags, tag)
        end = _HEAD.size + grade_bytes(positions)
        if level >= FIRST_FIXED_LEVEL or len(view) < end:
            raise CodecError("transform: grades are cut off, or have no meaning at their level.")
        return cls(level, flags, tag, unpacked_grades(view[_HEAD.size : end], positions))

    @property
    def size(self) -> int:
        """Bytes on the wire."""
        return _HEAD.size + (0 if self.grades is None else grade_bytes(self.grades.size))


@dataclass(frozen=True, slots=True)
class TransformPayload:
    """A payload's content; pieces by tile, kind and group."""

    head: PayloadHead
    sink_rows: bytes | memoryview
    pieces: Sequence[Piece]

    def to_bytes(self) -> bytes:
        """The payload."""
        pieces = [piece.to_bytes() for piece in self.pieces]
        sizes = np.array([len(piece) for piece in pieces], dtype="<u4").tobytes()
        return b"".join((self.head.to_bytes(), sizes, self.sink_rows, *pieces))

    @staticmethod
    def overhead_bytes(pieces: int) -> int:
        """Bytes beside escapes, sink rows and entropy."""
        return _HEAD.size + pieces * (2 * _COUNT.size + STATE_BYTES)

    @classmethod
    def parsed(cls, view: memoryview, head: PayloadHead, sink_bytes: int, pieces: int) -> Self:
        """Takes a payload apart, given its head, its sink rows' size and its number of pieces.

        Raises:
            CodecError: sizes do not add up.
        """
        fixed = head.size + _COUNT.size * pieces
        if len(view) < fixed:
            raise CodecError("transform: payload is truncated.")
        sizes = np.frombuffer(view[head.size : fixed], dtype="<u4").astype(np.int64)
        bounds = (fixed + sink_bytes + np.concatenate(([0], np.cumsum(sizes)))).tolist()
        if bounds[-1] != len(view):
            raise CodecError("transform: payload's parts do not add up to its size.")
        return cls(
            head,
            view[fixed : fixed + sink_bytes],
            [Piece.parsed(view[start:stop]) for start, stop in pairwise(bounds)],
        )

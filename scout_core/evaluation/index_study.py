"""How many bytes the index codec takes, beside what others would take.

Owns the rows of ``scout bench index``: for each (universe, count) one uniform and one clustered
set, drawn from a seed. Knows nothing of how a selection is chosen.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from scout_core.codec.positions import (
    bound_bytes,
    decode_positions,
    encode_positions,
    is_runs_payload,
)

INT32_BYTES: Final = 4
"""What the source paper sends per selected position."""
STUDIED: Final = ((170, 84), (1024, 102), (4096, 410), (32768, 3277))
MEAN_RUN_POSITIONS: Final = 8


class SetKind(Enum):
    """How the positions of a studied set lie."""

    UNIFORM = "uniform"
    """Any set of that size, equally likely: nothing can beat the bound on average."""
    CLUSTERED = "clustered"
    """Runs of 1 to 15 positions at random places, as pooled scores give."""


@dataclass(frozen=True, slots=True)
class IndexRow:
    """One measured set; all sizes in bytes."""

    n: int
    k: int
    kind: str
    bytes: int
    bound_bytes: int
    """log2 C(n, k) bits, rounded up to bytes: the information in *any* set of that size."""
    bitmap_bytes: int
    int32_bytes: int
    coded_as: str
    """``uniform`` or ``runs``: the kind that was shorter."""


def index_rows(seed: int = 0) -> Iterator[IndexRow]:
    """Measures every studied size and kind; each set is decoded again and compared."""
    source = random.Random(seed)  # noqa: S311 - a reproducible study, no secret
    for universe, count in STUDIED:
        for kind in SetKind:
            members = draw_set(source, universe, count, kind)
            payload = encode_positions(members, universe)
            if decode_positions(payload, universe, count).tolist() != members:
                raise AssertionError(f"index codec lost positions of ({universe}, {count})")
            yield IndexRow(
                n=universe,
                k=count,
                kind=kind.value,
                bytes=len(payload),
                bound_bytes=bound_bytes(universe, count),
                bitmap_bytes=-(-universe // 8),
                int32_bytes=INT32_BYTES * count,
                coded_as="runs" if is_runs_payload(payload, universe, count) else "uniform",
            )


def draw_set(source: random.Random, universe: int, count: int, kind: SetKind) -> list[int]:
    """A sorted set of ``count`` positions out of ``universe``."""
    if kind is SetKind.UNIFORM:
        return sorted(source.sample(range(universe), count))
    members: set[int] = set()
    while len(members) < count:
        length = min(source.randint(1, 2 * MEAN_RUN_POSITIONS - 1), count - len(members))
        start = source.randrange(universe - length + 1)
        members.update(range(start, start + length))
    return sorted(members)

"""Makes "90 %" mean ninety in a hundred on this link.

Each finished transfer says where its true time fell in the distribution that had been forecast: at
which level. If forecasts were perfect, levels would be uniform on [0, 1]. This module counts them
in bins and corrects every later probability by the counted distribution, in the manner of conformal
prediction: with few counts the correction is close to none, and slightly on the careful side.

It owns the counts of one link. It does not know rates, sizes or times.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise
from typing import Final

LEVELS: Final = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)
"""Edges of the bins; finer where policies look."""
PRIOR_COUNT: Final = 10.0
"""Perfect forecasts are worth so many counted transfers."""
CAREFUL_COUNT: Final = 0.25
"""Counted beyond the last edge at first: the next transfer may be slower than all before (split
conformal prediction counts 1; so much suffices on the dev traces)."""
MEMORY: Final = 0.99
"""Weight of the counts so far per transfer: about the last hundred count."""
IDENTITY: Final = LEVELS

_PRIOR: Final = tuple(
    PRIOR_COUNT * (high - low) + (CAREFUL_COUNT if high == 1.0 else 0.0)
    for low, high in pairwise(LEVELS)
)


def corrected(probability: float, curve: tuple[float, ...]) -> float:
    """``probability`` read off a curve given at ``LEVELS``, linear in between."""
    index = min(bisect_right(LEVELS, probability), len(LEVELS) - 1) - 1
    low = LEVELS[index]
    way = (probability - low) / (LEVELS[index + 1] - low)
    return curve[index] + way * (curve[index + 1] - curve[index])


class CoverageCounts:
    """Where true transfer times fell in their forecasts."""

    def __init__(self) -> None:
        self._counts = list(_PRIOR)

    def count(self, level: float) -> None:
        """One transfer's true time had been given probability ``level`` in [0, 1]."""
        self._counts = [
            prior + MEMORY * (count - prior)
            for prior, count in zip(_PRIOR, self._counts, strict=True)
        ]
        self._counts[min(bisect_right(LEVELS, level), len(LEVELS) - 1) - 1] += 1.0

    def curve(self) -> tuple[float, ...]:
        """Share of transfers at or below each of ``LEVELS``."""
        total = sum(self._counts)
        reached, curve = 0.0, [0.0]
        for count in self._counts:
            reached += count
            curve.append(reached / total)
        curve[-1] = 1.0
        return tuple(curve)

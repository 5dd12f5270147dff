"""Grades from how much the positions of a cache matter.

Owns one function of numbers. Let an error of variance d in the rows of position i cost w(i) · d, as
it does where w is the Fisher information, or, near enough, the expected square of the attention
that the position will get: what a row adds to an output is its value times its attention, and an
error in its key changes the output in proportion to the same attention. At a given number of bits
the sum of w(i) · d(i) is least where every position's errors cost the same, w(i) · d(i) = constant
(reverse water-filling with a weight). With d proportional to the square of the step, the step is
proportional to w^(-1/2): half an octave of step, 2 levels, for each octave of weight.

Weights that are measured or predicted say less about the future than the future itself would, so
only a share of that is taken (``STRENGTH``), and no more than ``MOST_FINER`` or ``MOST_COARSER``
levels of it: a position that nobody looked at may be the one that the next question is about. The
share was measured (README). Grades are even: twice as few runs in a tile for the same bits.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from scout_core.codec.transform_runs import LEVELS_PER_OCTAVE, Grades
from scout_core.errors import CodecError

STRENGTH: Final = 0.5
"""Share of the step's exponent, -1/2 in theory, that is used."""
MOST_FINER: Final = 6
MOST_COARSER: Final = 6
UNIT: Final = 2
"""Grades are multiples of it."""
HALVINGS: Final = 60
"""Of the interval in which the grades' middle is searched."""


def grades_of(weights: NDArray[np.floating], strength: float = STRENGTH) -> Grades:
    """Grades whose mean is 0 before they are rounded, so that sizes stay about what they were.

    Args:
        weights: ``[positions]``, in any unit, not negative: what a square error in each costs. 0
            counts as the least that is above 0.
        strength: see ``STRENGTH``.

    Returns:
        int8 ``[positions]``, for ``TransformCodec.at``.

    Raises:
        CodecError: a weight is negative, infinite or no number.
    """
    given = np.asarray(weights, dtype=np.float64)
    if given.ndim != 1 or not np.isfinite(given).all() or (given < 0).any():
        raise CodecError("Weights of positions must be finite and not negative, one a position.")
    if not given.any():
        return np.zeros(given.size, dtype=np.int8)
    octaves = np.log2(np.maximum(given, given[given > 0].min()))
    wanted = -strength * LEVELS_PER_OCTAVE / 2 * octaves
    low, high = float(wanted.min()), float(wanted.max())
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if _bounded(wanted - middle).mean() > 0:
            low = middle
        else:
            high = middle
    return (UNIT * np.round(_bounded(wanted - high) / UNIT)).astype(np.int8)


def _bounded(grades: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.clip(grades, -MOST_FINER, MOST_COARSER)

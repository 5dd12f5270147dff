"""Expected answer quality by mode, retention and context length, as a profile's rows give it.

Quality is relative: 1.0 is the cloud's model with the whole context. What was measured is an
estimate with an interval, and the policy is given what to expect from it (``expected_quality``): a
way of serving is not preferred to the whole context because it was lucky on a few questions.
Looking up is total once a table has been built: building fails where a mode has no row.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from scout_core.errors import ProfileError
from scout_core.modes import Execution, Mode

UNCALIBRATED_NAME: Final = "uncalibrated"
UNBOUNDED_TOKENS: Final = 1 << 31
INTERVAL_DEVIATIONS: Final = 1.96
"""Standard deviations from a mean to the end of its 95 % interval."""
DETECTED_DEVIATIONS: Final = 3.0
"""Above 1.0 by so many, less context is taken to give better answers. A profile has a dozen rows or
more: by two deviations one of them is above 1.0 by chance."""


@dataclass(frozen=True, slots=True)
class QualityRow:
    """One measured point, valid for contexts of ``context_tokens_low`` to ``_high`` tokens.

    Args:
        retention: fraction of context positions kept, in (0, 1].
        quality: mean, relative to the full context.
        n: questions behind it; 0 marks an assumption.
        low, high: 95 % interval of ``quality``.
        codec: of a KV mode's cache, as responses name it; None: unsaid, or no KV.
    """

    mode: Mode
    execution: Execution
    retention: float
    context_tokens_low: int
    context_tokens_high: int
    quality: float
    n: int
    low: float
    high: float
    codec: str | None = None


NEEDED: Final = (*((mode, Execution.EVICT) for mode in Mode), (Mode.SCOUT, Execution.SPARSE))
"""What every table must know: full KV modes count as evict at retention 1.0."""


def expected_quality(row: QualityRow) -> float:
    """What to expect of a way of serving, given what was measured of it.

    Leaving something out or rounding it does not improve answers, unless a measurement says so
    clearly (``DETECTED_DEVIATIONS``; then its mean is expected). Otherwise the truth is at most
    1.0, and what is expected is the mean of the measurement's normal distribution below that.
    Assumptions are returned as they are.
    """
    deviation = (row.high - row.low) / (2 * INTERVAL_DEVIATIONS)
    if row.n == 0 or deviation <= 0.0:
        return row.quality
    above = (row.quality - 1.0) / deviation
    if above > DETECTED_DEVIATIONS:
        return row.quality
    density = math.exp(-above * above / 2) / math.sqrt(2 * math.pi)
    below = 0.5 * math.erfc(above / math.sqrt(2))
    return row.quality - deviation * density / below


class QualityTable:
    """Interpolates rows. Implements the policy's ``QualityTable`` protocol.

    Raises:
        ProfileError: a mode has no row.
    """

    def __init__(self, name: str, rows: Iterable[QualityRow]) -> None:
        self.name = name
        self.rows = tuple(rows)
        self._by_way: dict[tuple[Mode, Execution], tuple[QualityRow, ...]] = {}
        for way in NEEDED:
            found = tuple(row for row in self.rows if (row.mode, row.execution) == way)
            if not found:
                raise ProfileError(
                    f"Profile {name} has no quality for {way[0].value} ({way[1].value}); "
                    "run 'scout calibrate' again.",
                )
            self._by_way[way] = found

    @property
    def calibrated(self) -> bool:
        """Whether measurements stand behind every row."""
        return all(row.n > 0 for row in self.rows)

    def quality(
        self, mode: Mode, execution: Execution, retention: float, context_tokens: int
    ) -> float:
        """Expected quality of one way of serving.

        ``expected_quality`` of its rows, linear in retention between them; from the lowest one to
        0 at retention 0; above the highest one its value. Where there are rows of several codecs,
        an edge may send any of them, and the least is expected. A length outside every band takes
        the nearest band.
        """
        way = (mode, execution if mode is Mode.SCOUT else Execution.EVICT)
        band = _nearest_band(self._by_way[way], context_tokens)
        least: dict[float, float] = {}
        for row in band:
            expected = expected_quality(row)
            least[row.retention] = min(least.get(row.retention, expected), expected)
        points = sorted(least.items())
        at = bisect_left(points, (retention, float("-inf")))
        if at == len(points):
            return points[-1][1]
        upper_at, upper = points[at]
        lower_at, lower = points[at - 1] if at else (0.0, 0.0)
        return lower + (upper - lower) * (retention - lower_at) / (upper_at - lower_at)


def _nearest_band(rows: tuple[QualityRow, ...], context_tokens: int) -> list[QualityRow]:
    def distance(row: QualityRow) -> int:
        below = row.context_tokens_low - context_tokens
        above = context_tokens - row.context_tokens_high
        return max(below, above, 0)

    nearest = min(rows, key=distance)
    edges = (nearest.context_tokens_low, nearest.context_tokens_high)
    return [row for row in rows if (row.context_tokens_low, row.context_tokens_high) == edges]


def _assumed(mode: Mode, execution: Execution, retention: float, quality: float) -> QualityRow:
    return QualityRow(mode, execution, retention, 1, UNBOUNDED_TOKENS, quality, 0, 0.0, quality)


UNCALIBRATED: Final = QualityTable(
    UNCALIBRATED_NAME,
    (
        # int8 and int4: DESIGN §2, "int8 is free; int4 costs KL 0.010".
        _assumed(Mode.KV_BF16, Execution.EVICT, 1.0, 1.0),
        _assumed(Mode.KV_INT8, Execution.EVICT, 1.0, 1.0),
        _assumed(Mode.KV_INT4, Execution.EVICT, 1.0, 0.99),
        # Without calibration a selection is taken to be no better than a random one: F1 34.3 and
        # 23.1 of 68.2 with a half and a quarter kept (DESIGN §2). The paper's curve has the same
        # shape, rising with retention, but belongs to other models.
        *(
            _assumed(mode, execution, retention, quality)
            for mode, execution in (
                (Mode.KV_SELECT, Execution.EVICT),
                (Mode.SCOUT, Execution.EVICT),
                (Mode.SCOUT, Execution.SPARSE),
            )
            for retention, quality in ((0.25, 0.34), (0.5, 0.50), (1.0, 1.0))
        ),
    ),
)
"""The prior that stands in where no profile exists; responses carry its name."""

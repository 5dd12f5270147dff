"""A mixture of simple opinions about a link's next average rate.

Each expert says: the rate will be what it was *just now* (or over the last second, the last few
seconds, usually), give or take a fixed spread. How far each is to be believed depends on the *lag*,
the age of the evidence plus the length of the transfer: a moment ahead the last value is nearly
always right, half a minute ahead only the usual one. The shares by lag were fitted over recorded
traces of all technology classes together (``SHARES``); what sets one link apart from the average
(a fixed line from a mmWave radio) is learnt while it is used.

This module owns the experts and their shares. It does not know acks, sizes or deadlines.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

RATE_FLOOR_BYTES_PER_S: Final = 500.0
"""Rates below it are treated as it: 4 kbit/s, a twenty-fifth of the slowest supported link."""
MEMORIES_S: Final = (0.02, 0.2, 3.0, 60.0)
"""Time constants of the four averages: just now, a moment ago, some seconds, usually."""
SPREAD_MEMORY_S: Final = 30.0
FIRST_SPREAD: Final = 0.55
LEAST_SPREAD: Final = 0.15
LARGEST_DEVIATION: Final = 4.0


@dataclass(frozen=True, slots=True)
class Expert:
    """One opinion: log rate = log of an average + ``offset``, ± ``deviation``.

    Attributes:
        memory: index into ``MEMORIES_S``.
        offset: added to the natural log of the average.
        deviation: standard deviation of the log rate; 0 takes the link's own usual spread.
    """

    memory: int
    offset: float
    deviation: float


EXPERTS: Final[tuple[Expert, ...]] = (
    Expert(0, 0.0, 0.03),
    Expert(0, 0.0, 0.12),
    Expert(0, 0.0, 0.4),
    Expert(1, 0.0, 0.2),
    Expert(2, 0.0, 0.15),
    Expert(2, 0.0, 0.45),
    Expert(3, 0.0, 0.2),
    Expert(3, 0.0, 0.0),
    Expert(3, -3.0, 1.5),
)
"""The last one is the outage: a twentieth of the usual rate, give or take a factor of five."""

LAGS_S: Final = (0.2, 0.7, 1.7, 4.0, 9.0, 25.0)
LOG_LAGS: Final = tuple(math.log(lag_s) for lag_s in LAGS_S)
SHARES: Final[tuple[tuple[float, ...], ...]] = (
    (0.702, 0.071, 0.163, 0.031, 0.010, 0.008, 0.002, 0.011, 0.002),
    (0.492, 0.158, 0.169, 0.057, 0.072, 0.002, 0.007, 0.039, 0.004),
    (0.300, 0.179, 0.188, 0.110, 0.110, 0.002, 0.013, 0.084, 0.014),
    (0.193, 0.153, 0.175, 0.113, 0.135, 0.003, 0.030, 0.180, 0.018),
    (0.121, 0.152, 0.165, 0.078, 0.152, 0.028, 0.063, 0.220, 0.020),
    (0.055, 0.152, 0.165, 0.011, 0.110, 0.060, 0.103, 0.282, 0.062),
)
"""Row: a lag; column: an expert. Maximum likelihood (EM) over the dev traces, each technology class
weighted equally; printed by ``scout eval policy --fit-shares`` (to 0.02: the sizes that are sent
depend on the table in force). Fitted on half of each class and judged on the other half, coverage
at 90 % was 0.889 to 0.916 in every class."""

EVIDENCE_OF_THE_FIT: Final = 12.0
"""The fitted shares count as so many judged stretches against the link's own."""
EVIDENCE_MEMORY: Final = 0.99
UNEXPLAINED: Final = 1e-3
"""Density given to what no expert expects, so that a surprise judges nobody."""


def lag_position(lag_s: float) -> tuple[int, float]:
    """Row of ``SHARES`` at or below a lag and the way to the next, in log time, in [0, 1]."""
    position = math.log(max(lag_s, LAGS_S[0]))
    for row in range(len(LOG_LAGS) - 1):
        if position < LOG_LAGS[row + 1]:
            return row, (position - LOG_LAGS[row]) / (LOG_LAGS[row + 1] - LOG_LAGS[row])
    return len(LOG_LAGS) - 2, 1.0


def shares_at(lag_s: float) -> list[float]:
    """Fitted share of each expert at a lag."""
    row, way = lag_position(lag_s)
    return [
        low + way * (high - low) for low, high in zip(SHARES[row], SHARES[row + 1], strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one expert says now: natural log of bytes per second, mean and standard deviation."""

    log_rate: float
    deviation: float

    def density(self, log_rate: float) -> float:
        """Normal density, without the constant factor."""
        distance = (log_rate - self.log_rate) / self.deviation
        return math.exp(-0.5 * distance * distance) / self.deviation


class RateExperts:
    """The experts' view of one link, and how far each has earned belief there."""

    def __init__(self) -> None:
        self._averages: list[float] = []
        self._spread_square = FIRST_SPREAD**2
        self._busy_s = 0.0
        self._credit = [EVIDENCE_OF_THE_FIT] * len(EXPERTS)
        self._expected = [EVIDENCE_OF_THE_FIT] * len(EXPERTS)

    @property
    def trust(self) -> tuple[float, ...]:
        """Factor on each expert's fitted share on this link."""
        return tuple(
            credit / expected for credit, expected in zip(self._credit, self._expected, strict=True)
        )

    def observe(self, bytes_per_s: float, window_s: float) -> None:
        """Moves the averages by one window of so many seconds."""
        rate = max(bytes_per_s, RATE_FLOOR_BYTES_PER_S)
        self._busy_s += window_s
        if not self._averages:
            self._averages = [rate] * len(MEMORIES_S)
            return
        for index, memory_s in enumerate(MEMORIES_S):
            # A young average is the plain mean of what there is.
            share = max(1.0 - math.exp(-window_s / memory_s), window_s / self._busy_s)
            self._averages[index] += share * (rate - self._averages[index])
        deviation = math.log(rate / self._averages[-1])
        deviation = max(-LARGEST_DEVIATION, min(LARGEST_DEVIATION, deviation))
        share = 1.0 - math.exp(-window_s / SPREAD_MEMORY_S)
        self._spread_square += share * (deviation * deviation - self._spread_square)

    def opinions(self) -> tuple[Opinion, ...]:
        """One per expert, in the order of ``EXPERTS``; empty before any observation."""
        if not self._averages:
            return ()
        logs = [math.log(average) for average in self._averages]
        usual = max(math.sqrt(self._spread_square), LEAST_SPREAD)
        return tuple(
            Opinion(logs[expert.memory] + expert.offset, expert.deviation or usual)
            for expert in EXPERTS
        )

    def judge(self, opinions: Sequence[Opinion], log_rate: float, lag_s: float) -> None:
        """Compares earlier opinions with what came: a stretch that ended ``lag_s`` after them."""
        shares = shares_at(lag_s)
        trusted = [share * factor for share, factor in zip(shares, self.trust, strict=True)]
        total = sum(trusted)
        densities = [
            share / total * opinion.density(log_rate)
            for share, opinion in zip(trusted, opinions, strict=True)
        ]
        evidence = sum(densities) + UNEXPLAINED
        weight = 1.0 - UNEXPLAINED / evidence
        for index, density in enumerate(densities):
            earned = density / evidence
            self._credit[index] = self._remembered(self._credit[index]) + earned
            expected = weight * trusted[index] / total / max(self.trust[index], 1e-6)
            self._expected[index] = self._remembered(self._expected[index]) + expected

    @staticmethod
    def _remembered(evidence: float) -> float:
        return EVIDENCE_OF_THE_FIT + EVIDENCE_MEMORY * (evidence - EVIDENCE_OF_THE_FIT)

"""A small bank of local-level models of the logarithm of a link's rate.

Each model says: the log rate drifts as a random walk (``drift_per_s``), and a window's average
scatters around it by fast fading that averages out with the window's length (``fading_s``). Steady
links and mmWave links need different pairs; which pair holds is learnt from the predictive
likelihood of each observation, so that no technology class is configured anywhere. The filter is
the scalar Kalman filter of the local level model (Harvey 1989, §2.3), its innovations clipped so
that one outage does not erase what is known.

This module owns the arithmetic of the bank. It does not know acks, sizes or deadlines.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

RATE_FLOOR_BYTES_PER_S: Final = 500.0
"""Rates below it are treated as it: 4 kbit/s, under a fortieth of the slowest supported link."""
TIMING_JITTER_S: Final = 0.004
"""Scheduling error of one arrival time on an ordinary host; makes short windows weak evidence."""
INNOVATION_LIMIT: Final = 3.0
"""Innovations beyond this many standard deviations are clipped to it."""
TAIL_FREEDOM: Final = 4.0
TAIL_POWER: Final = -0.5 * (TAIL_FREEDOM + 1.0)
"""Models are judged by Student's t with four degrees of freedom: one outlier decides nothing, but a
collapse far outside a narrow model soon favours the wide ones."""
LEVEL_VARIANCE_LIMIT: Final = 4.0
"""However old the evidence: the log rate stays within about ±2 standard deviations of e^2."""
EVIDENCE_MEMORY: Final = 0.97
"""Exponent on past model weights per observation: about the last 30 observations count."""
WEIGHT_FLOOR: Final = 1e-4


@dataclass(frozen=True, slots=True)
class LevelModel:
    """One hypothesis about how a link's rate moves.

    Attributes:
        drift_per_s: variance that the log rate's level gains per second.
        fading_s: variance of the log of a one-second average around the level; a window of ``w``
            seconds scatters by ``fading_s / w``.
    """

    drift_per_s: float
    fading_s: float

    def scatter(self, window_s: float) -> float:
        """Variance of a ``window_s`` average around the level at the window's start."""
        jitter = TIMING_JITTER_S / window_s
        return (
            self.drift_per_s * window_s / 3.0 + self.fading_s / (window_s + 0.1) + jitter * jitter
        )


BANK: Final[tuple[LevelModel, ...]] = tuple(
    LevelModel(drift_per_s=drift, fading_s=fading)
    for drift in (0.001, 0.01, 0.06, 0.3)
    for fading in (0.003, 0.03, 0.2)
)
"""Covers fixed broadband (log rate steady to a few per cent) to mmWave while driving."""


@dataclass(slots=True)
class LevelState:
    """What one model believes: weight, mean and variance of the log rate's level."""

    model: LevelModel
    weight: float
    log_rate: float
    variance: float


class RateModelBank:
    """Filters observed rates through every model and weighs the models by how well they predict.

    Args:
        prior_log_rate: mean of the log rate (natural log of bytes per second) before any evidence.
        prior_variance: its variance.
    """

    def __init__(self, prior_log_rate: float, prior_variance: float) -> None:
        self._states = [
            LevelState(model, 1.0 / len(BANK), prior_log_rate, prior_variance) for model in BANK
        ]

    def observe(self, bytes_per_s: float, window_s: float, gap_s: float) -> None:
        """Takes in one window average.

        Args:
            bytes_per_s: average rate of the window.
            window_s: its length, > 0.
            gap_s: seconds between the end of the last observed window and this one's start, ≥ 0.
        """
        log_rate = math.log(max(bytes_per_s, RATE_FLOOR_BYTES_PER_S))
        total = 0.0
        for state in self._states:
            model = state.model
            prior = min(state.variance + model.drift_per_s * gap_s, LEVEL_VARIANCE_LIMIT)
            spread = prior + model.scatter(window_s)
            deviation = math.sqrt(spread)
            limit = INNOVATION_LIMIT * deviation
            innovation = max(-limit, min(limit, log_rate - state.log_rate))
            gain = prior / spread
            surprise = (log_rate - state.log_rate) ** 2 / spread
            state.log_rate += gain * innovation
            state.variance = prior * (1.0 - gain) + model.drift_per_s * window_s / 3.0
            likelihood = (1.0 + surprise / TAIL_FREEDOM) ** TAIL_POWER / deviation
            state.weight = max(state.weight**EVIDENCE_MEMORY * likelihood, 1e-12)
            total += state.weight
        for state in self._states:
            state.weight = max(state.weight / total, WEIGHT_FLOOR)

    def levels(self, age_s: float) -> tuple[LevelState, ...]:
        """A copy of the beliefs, widened by the age of the evidence; weights sum to one."""
        total = sum(state.weight for state in self._states)
        return tuple(
            LevelState(
                state.model,
                state.weight / total,
                state.log_rate,
                min(state.variance + state.model.drift_per_s * age_s, LEVEL_VARIANCE_LIMIT),
            )
            for state in self._states
        )

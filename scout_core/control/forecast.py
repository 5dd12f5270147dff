"""The distribution of the time that a payload of some size needs on the uplink.

The model behind it is a distribution of the *average rate over a horizon*: a transfer of ``S``
bytes is over within ``t`` exactly if the average rate of the first ``t`` seconds reaches ``S / t``.
Longer horizons average the fading out and let the drift in, so the spread depends on the size.

This module owns the arithmetic of one forecast. It does not know where the beliefs came from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

SQRT_2: Final = math.sqrt(2.0)
LONGEST_TRANSFER_S: Final = 3600.0
SHORTEST_TRANSFER_S: Final = 1e-4
LOG_TIME_TOLERANCE: Final = 1e-3


@dataclass(frozen=True, slots=True)
class RateBelief:
    """One component of the mixture over the log rate (natural log of bytes per second).

    Attributes:
        weight: share of the mixture.
        log_rate: mean.
        level_variance: variance of the level now.
        drift_per_s: variance gained per second of horizon (a third of it in an average).
        fading_s: variance of a one-second average; averages out as ``fading_s / horizon``.
    """

    weight: float
    log_rate: float
    level_variance: float
    drift_per_s: float
    fading_s: float

    def deviation(self, horizon_s: float) -> float:
        """Standard deviation of the log of the average rate over ``horizon_s``."""
        return math.sqrt(
            self.level_variance
            + self.drift_per_s * horizon_s / 3.0
            + self.fading_s / (horizon_s + 0.1)
        )


@dataclass(frozen=True, slots=True)
class TransferForecast:
    """What the link is expected to do from now on.

    Attributes:
        beliefs: mixture of log-normal beliefs; weights sum to one.
        round_trip_s: added to every transfer (the last byte travels, its ack returns).
        known: False while nothing but the prior stands behind the figures.
        recent_bytes_per_s: the last observed rates, oldest first, for policies that use no
            distribution.
        spread_scale: factor on the standard deviations, learnt from past forecasts of this link.
    """

    beliefs: tuple[RateBelief, ...]
    round_trip_s: float
    known: bool
    recent_bytes_per_s: tuple[float, ...] = field(default=())
    spread_scale: float = 1.0

    def probability_within(self, payload_bytes: float, seconds: float) -> float:
        """Probability that ``payload_bytes`` are delivered and acknowledged within ``seconds``."""
        horizon_s = seconds - self.round_trip_s
        if horizon_s <= 0.0:
            return 0.0
        if payload_bytes <= 0.0:
            return 1.0
        needed = math.log(payload_bytes / horizon_s)
        total = 0.0
        for belief in self.beliefs:
            deviation = belief.deviation(horizon_s) * self.spread_scale
            total += belief.weight * math.erfc((needed - belief.log_rate) / (deviation * SQRT_2))
        return min(1.0, 0.5 * total)

    def transfer_time_s(self, payload_bytes: float, quantile: float) -> float:
        """Seconds within which the payload is through with probability ``quantile`` in (0, 1).

        Never more than an hour (plus the round trip): beyond that "never" is the honest reading.
        """
        if payload_bytes <= 0.0:
            return self.round_trip_s
        low, high = math.log(SHORTEST_TRANSFER_S), math.log(LONGEST_TRANSFER_S)
        while high - low > LOG_TIME_TOLERANCE:
            middle = 0.5 * (low + high)
            within = self.probability_within(payload_bytes, math.exp(middle) + self.round_trip_s)
            if within >= quantile:
                high = middle
            else:
                low = middle
        return math.exp(high) + self.round_trip_s

    def rate_quantile_bytes_per_s(self, quantile: float, horizon_s: float = 1.0) -> float:
        """Quantile of the average rate over ``horizon_s``, bytes per second."""
        low, high = 0.0, 30.0
        while high - low > LOG_TIME_TOLERANCE:
            middle = 0.5 * (low + high)
            above = self.probability_within(
                math.exp(middle) * horizon_s, horizon_s + self.round_trip_s
            )
            if 1.0 - above >= quantile:
                high = middle
            else:
                low = middle
        return math.exp(high)

    @property
    def median_bytes_per_s(self) -> float:
        """Median of the average rate over the next second."""
        return self.rate_quantile_bytes_per_s(0.5)

    @property
    def low_bytes_per_s(self) -> float:
        """10 % quantile of the average rate over the next second."""
        return self.rate_quantile_bytes_per_s(0.1)

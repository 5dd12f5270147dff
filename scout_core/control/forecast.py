"""The distribution of the time that a payload of some size needs on the uplink.

The model behind it is a distribution of the *average rate over a horizon*: a transfer of ``S``
bytes is over within ``t`` exactly if the average rate of the first ``t`` seconds reaches ``S / t``.
That distribution is a mixture of log-normal beliefs whose weights depend on the lag (age of the
evidence plus the horizon), so the spread depends on the size.

This module owns the arithmetic of one forecast. It does not know where the beliefs came from.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Final

from scout_core.control.coverage import IDENTITY, corrected

SQRT_HALF: Final = math.sqrt(0.5)
LONGEST_TRANSFER_S: Final = 3600.0
SHORTEST_TRANSFER_S: Final = 1e-4
LOG_TIME_TOLERANCE: Final = 4e-3
"""Times and rates are solved for to 0.4 %, far finer than they are known."""


@dataclass(frozen=True, slots=True)
class RateBelief:
    """One component of the mixture over the log rate (natural log of bytes per second).

    Attributes:
        log_rate: mean.
        deviation: standard deviation, > 0.
        weights: relative weight at each lag of the forecast.
    """

    log_rate: float
    deviation: float
    weights: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class TransferForecast:
    """What the link is expected to do from now on.

    Attributes:
        beliefs: mixture of log-normal beliefs.
        log_lags: natural logs of the lags (seconds) at which the beliefs' weights are given;
            in between they are interpolated, outside the nearest holds.
        age_s: age of the evidence; the lag of a transfer is age plus duration.
        round_trip_s: added to every transfer (the last byte travels, its ack returns).
        known: False while nothing but the prior stands behind the figures.
        recent_bytes_per_s: the last observed rates, oldest first, for policies that use no
            distribution.
        correction: what probabilities have turned out to mean on this link (``coverage``).
    """

    beliefs: tuple[RateBelief, ...]
    log_lags: tuple[float, ...]
    age_s: float
    round_trip_s: float
    known: bool
    recent_bytes_per_s: tuple[float, ...] = field(default=())
    correction: tuple[float, ...] = IDENTITY

    def probability_within(
        self, payload_bytes: float, seconds: float, delay_s: float = 0.0
    ) -> float:
        """Probability that ``payload_bytes`` are delivered and acknowledged within ``seconds``.

        Args:
            payload_bytes: size of the transfer.
            seconds: allowed from its first byte on, the round trip included.
            delay_s: how long from now it will begin; the evidence will be older by then.
        """
        return corrected(self.level(payload_bytes, seconds, delay_s), self.correction)

    def level(self, payload_bytes: float, seconds: float, delay_s: float = 0.0) -> float:
        """The same before the link's coverage correction: what ``CoverageCounts`` counts."""
        horizon_s = seconds - self.round_trip_s
        if horizon_s <= 0.0:
            return 0.0
        if payload_bytes <= 0.0:
            return 1.0
        needed = math.log(payload_bytes / horizon_s)
        row, way = self._lag_position(self.age_s + delay_s + horizon_s)
        reached = total = 0.0
        for belief in self.beliefs:
            weight = belief.weights[row]
            if way > 0.0:
                weight += way * (belief.weights[row + 1] - weight)
            total += weight
            distance = (needed - belief.log_rate) / belief.deviation
            reached += weight * math.erfc(distance * SQRT_HALF)
        return min(1.0, 0.5 * reached / total)

    def _lag_position(self, lag_s: float) -> tuple[int, float]:
        position = math.log(lag_s)
        row = bisect_right(self.log_lags, position) - 1
        if row < 0:
            return 0, 0.0
        if row >= len(self.log_lags) - 1:
            return len(self.log_lags) - 1, 0.0
        low = self.log_lags[row]
        return row, (position - low) / (self.log_lags[row + 1] - low)

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

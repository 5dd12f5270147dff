"""Learns a link from observed transfers and forecasts the next one.

``GoodputEstimator`` owns which observations count and how much; the filter is in ``rate_models``,
the forecast's arithmetic in ``forecast``, the way from acks to observations in ``acks``.
It does not know a clock: every call that needs one takes ``now``.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Final

from scout_core.control.forecast import RateBelief, TransferForecast
from scout_core.control.rate_models import RateModelBank
from scout_core.control.samples import TransferSample

RECENT_SAMPLES: Final = 10
LEAST_WEIGHT: Final = 0.02
"""Mixture components below it are left out of a forecast: they cost time and decide nothing."""


@dataclass(frozen=True, slots=True)
class EstimatorSettings:
    """What is assumed before evidence, and what counts as evidence.

    Attributes:
        prior_bytes_per_s: median rate of a link nobody has measured. The default, 5 Mbit/s, is
            below the mean rate of five in six recorded LTE and 5G uplinks, above most 3G.
        prior_deviation: standard deviation of its natural logarithm; 1.5 puts the 10 % quantile at
            0.7 Mbit/s.
        smallest_payload_bytes: smaller transfers say more about scheduling than about the link.
        smallest_window_s: shorter stretches likewise.
    """

    prior_bytes_per_s: float = 625_000.0
    prior_deviation: float = 1.5
    smallest_payload_bytes: int = 4096
    smallest_window_s: float = 0.002
    stall_window_s: float = 0.1


class GoodputEstimator:
    """The uplink of one agent, as far as its transfers have shown it."""

    def __init__(self, settings: EstimatorSettings | None = None) -> None:
        self._settings = settings or EstimatorSettings()
        self._bank = RateModelBank(
            prior_log_rate=math.log(self._settings.prior_bytes_per_s),
            prior_variance=self._settings.prior_deviation**2,
        )
        self._recent: deque[float] = deque(maxlen=RECENT_SAMPLES)
        self._observed_at_s: float | None = None

    @property
    def known(self) -> bool:
        """Whether any transfer has been informative so far."""
        return self._observed_at_s is not None

    def observe(self, sample: TransferSample) -> bool:
        """Takes in one observation; returns whether it carried information.

        Application-limited samples are lower bounds: they count only when they exceed what is
        believed. Tiny payloads never count, unless the link delivered nothing for long: a stall.
        """
        if not self._informative(sample):
            return False
        rate = sample.bytes_per_s
        if sample.application_limited and rate <= self.forecast(sample.at_s).median_bytes_per_s:
            return False
        gap_s = 0.0
        if self._observed_at_s is not None:
            gap_s = max(0.0, sample.at_s - sample.duration_s - self._observed_at_s)
        self._bank.observe(rate, sample.duration_s, gap_s)
        self._recent.append(rate)
        self._observed_at_s = max(sample.at_s, self._observed_at_s or sample.at_s)
        return True

    def _informative(self, sample: TransferSample) -> bool:
        settings = self._settings
        if sample.duration_s < settings.smallest_window_s:
            return False
        if sample.payload_bytes >= settings.smallest_payload_bytes:
            return True
        return not sample.application_limited and sample.duration_s >= settings.stall_window_s

    def forecast(self, now: float, round_trip_s: float = 0.0) -> TransferForecast:
        """The link from ``now`` on; wider, the older the evidence.

        Args:
            now: seconds on the clock of the samples.
            round_trip_s: propagation to the cloud and back, added to every transfer.
        """
        age_s = 0.0 if self._observed_at_s is None else max(0.0, now - self._observed_at_s)
        levels = [level for level in self._bank.levels(age_s) if level.weight >= LEAST_WEIGHT]
        total = sum(level.weight for level in levels)
        return TransferForecast(
            beliefs=tuple(
                RateBelief(
                    weight=level.weight / total,
                    log_rate=level.log_rate,
                    level_variance=level.variance,
                    drift_per_s=level.model.drift_per_s,
                    fading_s=level.model.fading_s,
                )
                for level in levels
            ),
            round_trip_s=round_trip_s,
            known=self.known,
            recent_bytes_per_s=tuple(self._recent),
        )

"""Learns a link from observed transfers and forecasts the next one.

``GoodputEstimator`` owns which observations count, and when opinions are judged; the opinions are
in ``rate_experts``, the forecast's arithmetic in ``forecast``, the way from acks to observations in
``acks``. It does not know a clock: every call that needs one takes ``now``.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from scout_core.control.coverage import CoverageCounts
from scout_core.control.forecast import RateBelief, TransferForecast
from scout_core.control.rate_experts import (
    LOG_LAGS,
    RATE_FLOOR_BYTES_PER_S,
    SHARES,
    Opinion,
    RateExperts,
)
from scout_core.control.samples import TransferSample

RECENT_SAMPLES: Final = 10
STRETCH_S: Final = 0.5
"""Forecasts are judged by averages over at most this long; a pause ends a stretch early."""
PAUSE_S: Final = 0.02


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
        stall_window_s: fewer bytes in a stretch of at least this length are a stall, and count.
    """

    prior_bytes_per_s: float = 625_000.0
    prior_deviation: float = 1.5
    smallest_payload_bytes: int = 4096
    smallest_window_s: float = 0.002
    stall_window_s: float = 0.1


@dataclass(slots=True)
class _Stretch:
    """Observations without a pause, and the opinions held before the first of them."""

    opinions: tuple[Opinion, ...]
    age_s: float
    payload_bytes: int = 0
    duration_s: float = 0.0


class GoodputEstimator:
    """The uplink of one agent, as far as its transfers have shown it."""

    def __init__(self, settings: EstimatorSettings | None = None) -> None:
        self._settings = settings or EstimatorSettings()
        self._experts = RateExperts()
        self._recent: deque[float] = deque(maxlen=RECENT_SAMPLES)
        self._observed_at_s: float | None = None
        self._stretch: _Stretch | None = None
        self._coverage = CoverageCounts()

    @property
    def known(self) -> bool:
        """Whether any transfer has been informative so far."""
        return self._observed_at_s is not None

    def sample_age_s(self, now: float) -> float:
        """Seconds since the last informative observation; negative when there was none."""
        return -1.0 if self._observed_at_s is None else max(0.0, now - self._observed_at_s)

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
        self._judge(sample)
        self._experts.observe(rate, sample.duration_s)
        self._recent.append(rate)
        self._observed_at_s = max(sample.at_s, self._observed_at_s or sample.at_s)
        return True

    def settle(self, forecast: TransferForecast, payload_bytes: int, transfer_s: float) -> None:
        """A transfer is through: corrects later probabilities by where its time fell.

        Args:
            forecast: the one made when the transfer began.
            payload_bytes: what was sent in the end, whatever mode it was planned in.
            transfer_s: first byte written to last byte acknowledged; for a transfer given up, the
                time until then (it is a lower bound, which errs on the bold side: rare).
        """
        if forecast.known and payload_bytes >= self._settings.smallest_payload_bytes:
            self._coverage.count(forecast.level(payload_bytes, transfer_s))

    def _informative(self, sample: TransferSample) -> bool:
        settings = self._settings
        if sample.duration_s < settings.smallest_window_s:
            return False
        if sample.payload_bytes >= settings.smallest_payload_bytes:
            return True
        return not sample.application_limited and sample.duration_s >= settings.stall_window_s

    def _judge(self, sample: TransferSample) -> None:
        """Adds the sample to the running stretch; a finished stretch judges the experts."""
        if self._observed_at_s is None:
            return
        gap_s = max(0.0, sample.at_s - sample.duration_s - self._observed_at_s)
        if self._stretch is not None and gap_s > PAUSE_S:
            self._close(self._stretch)
        if self._stretch is None:
            self._stretch = _Stretch(self._experts.opinions(), gap_s)
        self._stretch.payload_bytes += sample.payload_bytes
        self._stretch.duration_s += sample.duration_s
        if self._stretch.duration_s >= STRETCH_S:
            self._close(self._stretch)

    def _close(self, stretch: _Stretch) -> None:
        rate = max(stretch.payload_bytes / stretch.duration_s, RATE_FLOOR_BYTES_PER_S)
        lag_s = stretch.age_s + stretch.duration_s
        self._experts.judge(stretch.opinions, math.log(rate), lag_s)
        self._stretch = None

    def forecast(self, now: float, round_trip_s: float = 0.0) -> TransferForecast:
        """The link from ``now`` on; wider, the older the evidence.

        Args:
            now: seconds on the clock of the samples.
            round_trip_s: propagation to the cloud and back, added to every transfer.
        """
        if self._observed_at_s is None:
            settings = self._settings
            log_rate = math.log(settings.prior_bytes_per_s)
            prior = RateBelief(log_rate, settings.prior_deviation, (1.0,))
            return TransferForecast((prior,), (0.0,), 0.0, round_trip_s, known=False)
        return TransferForecast(
            beliefs=tuple(self._beliefs()),
            log_lags=LOG_LAGS,
            age_s=max(0.0, now - self._observed_at_s),
            round_trip_s=round_trip_s,
            known=True,
            recent_bytes_per_s=tuple(self._recent),
            correction=self._coverage.curve(),
        )

    def expected_bytes_per_s(self, now: float) -> float:
        """The median of what is believed of the link at ``now``."""
        return self.forecast(now).median_bytes_per_s

    def _beliefs(self) -> Iterator[RateBelief]:
        for index, (opinion, trust) in enumerate(
            zip(self._experts.opinions(), self._experts.trust, strict=True)
        ):
            weights = tuple(row[index] * trust for row in SHARES)
            yield RateBelief(opinion.log_rate, opinion.deviation, weights)

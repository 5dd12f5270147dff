"""Are transfer-time forecasts true? Coverage and pinball loss over links, beside the classics.

Owns the study: transfers of many sizes on every link, the forecast before each, and its true time;
the classical point predictors on the same observations. It does not know policies.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scout_core.control.estimator import GoodputEstimator
from scout_core.control.forecast import TransferForecast
from scout_core.control.policies.throughput import harmonic_mean
from scout_core.control.samples import TransferSample
from scout_core.evaluation.policy_links import Link
from scout_core.testbed.schedule import BITS_PER_BYTE

SIZES_BYTES: Final = tuple(1 << power for power in range(14, 25))
"""16 KiB to 16 MiB: from a long context's token ids to the KV of some hundred tokens."""
LONGEST_PLANNED_S: Final = 10.0
"""No sender starts a transfer whose median forecast is longer than twice the longest deadline."""
LONGEST_S: Final = 300.0
"""True times are cut here: a recording's outage may outlast anyone's patience."""
WATCHED_S: Final = 60.0
MEAN_PAUSE_S: Final = 3.0
STUDY_S: Final = (300.0, 600.0)
"""Seconds on each link: its recording's length, within these limits (short ones repeat)."""
WINDOW_S: Final = 0.1
LEVELS: Final = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
OURS: Final = "ours"
SLOWEST_BYTES_PER_S: Final = 1.0
Floats = NDArray[np.float64]


@dataclass(slots=True)
class Classics:
    """Point predictors of the rate, bytes per second, fed with the same observations.

    Harmonic mean of the last five and EWMA pair with half-lives of 2 and 5 s, the lower one (as in
    hls.js and Shaka Player), and the last sample.
    """

    recent: deque[float] = field(default_factory=lambda: deque(maxlen=5))
    fast: float = 0.0
    slow: float = 0.0
    weight_fast: float = 0.0
    weight_slow: float = 0.0

    def observe(self, sample: TransferSample) -> None:
        rate, duration_s = sample.bytes_per_s, sample.duration_s
        self.recent.append(rate)
        keep_fast, keep_slow = 0.5 ** (duration_s / 2.0), 0.5 ** (duration_s / 5.0)
        self.fast = keep_fast * self.fast + (1.0 - keep_fast) * rate
        self.slow = keep_slow * self.slow + (1.0 - keep_slow) * rate
        self.weight_fast = keep_fast * self.weight_fast + 1.0 - keep_fast
        self.weight_slow = keep_slow * self.weight_slow + 1.0 - keep_slow

    def rates(self) -> Mapping[str, float]:
        pair = min(self.fast / self.weight_fast, self.slow / self.weight_slow)
        return {
            "harmonic_mean_5": harmonic_mean(self.recent),
            "ewma_2_5": max(pair, SLOWEST_BYTES_PER_S),
            "last_sample": max(self.recent[-1], SLOWEST_BYTES_PER_S),
        }


@dataclass(frozen=True, slots=True)
class Judged:
    """One transfer: what was forecast and what came."""

    tech_class: str
    at_s: float
    size_bytes: int
    true_s: float
    forecast: TransferForecast
    classic_s: Mapping[str, float]


def judged_transfers(link: Link, seed: int = 0) -> Iterator[Judged]:
    """Transfers on one link with pauses in between, each forecast from those before."""
    random = Random(f"{seed}/{link.name}")  # noqa: S311 - a simulation, not a secret
    estimator, classics = GoodputEstimator(), Classics()
    clock_s = random.uniform(0.0, 5.0)
    shortest_s, longest_s = STUDY_S
    while clock_s < max(shortest_s, min(link.duration_s, longest_s)):
        forecast = estimator.forecast(clock_s)
        planned_bytes = forecast.median_bytes_per_s * LONGEST_PLANNED_S
        sizes = [size for size in SIZES_BYTES if size <= planned_bytes] or SIZES_BYTES[:1]
        size = random.choice(sizes)
        finish_s = link.schedule.finish_time(clock_s, size)
        true_s = min(finish_s - clock_s, LONGEST_S)
        if forecast.known:
            classic_s = {name: size / rate for name, rate in classics.rates().items()}
            yield Judged(link.tech_class, clock_s, size, true_s, forecast, classic_s)
        stop_s = min(finish_s, clock_s + WATCHED_S)
        for sample in _windows(link, clock_s, stop_s):
            estimator.observe(sample)
            classics.observe(sample)
        estimator.settle(forecast, size, true_s)
        clock_s = stop_s + random.expovariate(1.0 / MEAN_PAUSE_S)


def _windows(link: Link, from_s: float, to_s: float) -> Iterator[TransferSample]:
    clock_s = from_s
    while clock_s < to_s - 1e-9:
        end_s = min(clock_s + WINDOW_S, to_s)
        delivered = int(link.schedule.bits_between(clock_s, end_s) / BITS_PER_BYTE)
        yield TransferSample(delivered, end_s - clock_s, False, end_s)
        clock_s = end_s


@dataclass(frozen=True, slots=True)
class CalibrationRow:
    """One predictor on one technology class.

    Attributes:
        coverage: share of true times at or under the forecast quantile, by level. For a point
            predictor the point is every quantile.
        pinball: mean pinball loss of log seconds, by level.
    """

    predictor: str
    tech_class: str
    transfers: int
    coverage: Mapping[str, float]
    pinball: Mapping[str, float]


def calibration_rows(judged: Iterable[Judged]) -> list[CalibrationRow]:
    """Every predictor on every class; pinball in log seconds, so that every size counts alike."""
    by_class: dict[str, list[Judged]] = defaultdict(list)
    for transfer in judged:
        by_class[transfer.tech_class].append(transfer)
    found: list[CalibrationRow] = []
    for tech_class, transfers in sorted(by_class.items()):
        true = np.log([transfer.true_s for transfer in transfers])
        for predictor in (OURS, *transfers[0].classic_s):
            quantiles = {level: _predicted(predictor, transfers, level) for level in LEVELS}
            found.append(
                CalibrationRow(
                    predictor=predictor,
                    tech_class=tech_class,
                    transfers=len(transfers),
                    coverage={
                        f"{level:g}": float(np.mean(true <= quantiles[level])) for level in LEVELS
                    },
                    pinball={
                        f"{level:g}": _pinball(true, quantiles[level], level) for level in LEVELS
                    },
                )
            )
    return found


def _predicted(predictor: str, transfers: Sequence[Judged], level: float) -> Floats:
    if predictor == OURS:
        seconds = [t.forecast.transfer_time_s(t.size_bytes, level) for t in transfers]
    else:
        seconds = [t.classic_s[predictor] for t in transfers]
    return np.log(seconds)


def _pinball(true: Floats, predicted: Floats, level: float) -> float:
    error = true - predicted
    return float(np.mean(np.maximum(level * error, (level - 1.0) * error)))

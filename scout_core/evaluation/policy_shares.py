"""The fit of the rate experts' shares by lag (``scout_core.control.rate_experts.SHARES``).

Owns the maximum-likelihood fit over links. The table it prints is pasted by hand: a forecast must
not change because someone ran a study.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scout_core.control.rate_experts import RATE_FLOOR_BYTES_PER_S
from scout_core.evaluation.policy_calibration import judged_transfers
from scout_core.evaluation.policy_links import Link
from scout_core.testbed.schedule import BITS_PER_BYTE

Floats = NDArray[np.float64]

FIT_HORIZONS_S: Final = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
FIT_EDGES_S: Final = (0.0, 0.4, 1.0, 2.5, 6.0, 15.0, math.inf)
"""Bins of the lag around the knots ``rate_experts.LAGS_S``."""
FIT_ROUNDS: Final = 200
LEAST_SHARE: Final = 0.002


def fitted_shares(links: Sequence[Link], seed: int = 0) -> list[list[float]]:
    """The experts' shares by lag: maximum likelihood (EM), technology classes weighted equally.

    Returns one row per lag bin and one column per expert, each row summing to one.
    """
    lags, opinions, truths, classes = _fit_points(links, seed)
    table: list[list[float]] = []
    for low_s, high_s in pairwise(FIT_EDGES_S):
        inside = (lags >= low_s) & (lags < high_s)
        table.append(_em_shares(opinions[inside], truths[inside], classes[inside]))
    return table


def _fit_points(
    links: Sequence[Link], seed: int
) -> tuple[Floats, Floats, Floats, NDArray[np.int64]]:
    """Lag, opinions ``[points, experts, 2]``, true log rate and class number of every point."""
    lags: list[float] = []
    opinions: list[list[tuple[float, float]]] = []
    truths: list[float] = []
    classes: list[int] = []
    numbers: dict[str, int] = {}
    for link in links:
        number = numbers.setdefault(link.tech_class, len(numbers))
        for transfer in judged_transfers(link, seed):
            forecast, at_s = transfer.forecast, transfer.at_s
            view = [(belief.log_rate, belief.deviation) for belief in forecast.beliefs]
            for horizon_s in FIT_HORIZONS_S:
                bits = link.schedule.bits_between(at_s, at_s + horizon_s)
                rate = max(bits / BITS_PER_BYTE / horizon_s, RATE_FLOOR_BYTES_PER_S)
                lags.append(forecast.age_s + horizon_s)
                opinions.append(view)
                truths.append(math.log(rate))
                classes.append(number)
    return np.array(lags), np.array(opinions), np.array(truths), np.array(classes)


def _em_shares(opinions: Floats, truths: Floats, classes: NDArray[np.int64]) -> list[float]:
    weights = np.zeros(len(truths))
    for number in np.unique(classes):
        weights[classes == number] = 1.0 / np.sum(classes == number)
    weights /= weights.sum()
    mean, deviation = opinions[:, :, 0], opinions[:, :, 1]
    density = np.exp(-0.5 * ((truths[:, None] - mean) / deviation) ** 2) / deviation + 1e-9
    shares = np.full(density.shape[1], 1.0 / density.shape[1])
    for _ in range(FIT_ROUNDS):
        earned = density * shares
        earned /= earned.sum(axis=1, keepdims=True)
        shares = (weights[:, None] * earned).sum(axis=0)
    shares = np.maximum(shares, LEAST_SHARE)
    return [float(share) for share in shares / shares.sum()]

"""Robust model-predictive control, reduced to one request.

RobustMPC (Yin et al., SIGCOMM 2015, §4.3) divides the harmonic mean of the last five observations
by one plus the largest relative error that this predictor made on them, and then solves the
planning problem exactly; with one decision a request the horizon is that request. Owns the
discount; the choice at a rate is that of the throughput rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scout_core.control.offers import Offer
from scout_core.control.policies.throughput import (
    SLOWEST_BYTES_PER_S,
    WINDOW,
    assumed_rate,
    best_at_rate,
    harmonic_mean,
)
from scout_core.control.policy import Decision, Situation, decision


def largest_error(rates: Sequence[float]) -> float:
    """Largest relative error of the harmonic-mean predictor over the last five rates."""
    worst = 0.0
    for index in range(max(1, len(rates) - WINDOW), len(rates)):
        predicted = harmonic_mean(rates[max(0, index - WINDOW) : index])
        actual = max(rates[index], SLOWEST_BYTES_PER_S)
        worst = max(worst, abs(predicted - actual) / actual)
    return worst


@dataclass(frozen=True, slots=True)
class RobustMpcPolicy:
    """The throughput rule at a rate discounted by past errors."""

    name: str = "robust_mpc"

    def choose(self, offers: Sequence[Offer], situation: Situation) -> Decision:
        error = largest_error(situation.forecast.recent_bytes_per_s)
        rate = assumed_rate(situation) / (1.0 + error)
        offer, fits = best_at_rate(offers, situation, rate)
        verdict = "the best that fits" if fits else "nothing fits, the fastest"
        return decision(offer, situation, f"At a discounted {rate * 8e-6:.2f} Mbit/s {verdict}.")

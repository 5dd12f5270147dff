"""The throughput rule: trust one rate figure, take the best that fits.

The classical adaptive-streaming rule (e.g. the rate-based controllers compared in Yin et al.,
SIGCOMM 2015, §6): harmonic mean of the last five observations. Owns that figure and the rule; it
does not know the forecast's distribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from scout_core.control.offers import Offer
from scout_core.control.policy import Decision, Situation, decision, require_offers, ttft_s

WINDOW: Final = 5
SLOWEST_BYTES_PER_S: Final = 1.0


def harmonic_mean(rates: Sequence[float]) -> float:
    """Harmonic mean, bytes per second; a stalled observation counts as one byte per second."""
    return len(rates) / sum(1.0 / max(rate, SLOWEST_BYTES_PER_S) for rate in rates)


def assumed_rate(situation: Situation) -> float:
    """Harmonic mean of the last five observed rates; the forecast's median before any."""
    recent = situation.forecast.recent_bytes_per_s[-WINDOW:]
    return harmonic_mean(recent) if recent else situation.forecast.median_bytes_per_s


def best_at_rate(
    offers: Sequence[Offer], situation: Situation, bytes_per_s: float
) -> tuple[Offer, bool]:
    """Highest quality that fits at ``bytes_per_s`` (fewer bytes on a tie), else the fastest.

    Returns the offer and whether it fits.
    """
    require_offers(offers)

    def time_of(offer: Offer) -> float:
        transfer_s = offer.payload_bytes / bytes_per_s + situation.round_trip_s
        return ttft_s(offer, situation, transfer_s)

    fitting = [offer for offer in offers if time_of(offer) <= situation.deadline_s]
    if fitting:
        return max(fitting, key=lambda offer: (offer.quality, -offer.payload_bytes)), True
    return min(offers, key=time_of), False


@dataclass(frozen=True, slots=True)
class ThroughputPolicy:
    """Highest quality whose predicted time at the mean rate meets the deadline."""

    name: str = "throughput"

    def choose(self, offers: Sequence[Offer], situation: Situation) -> Decision:
        rate = assumed_rate(situation)
        offer, fits = best_at_rate(offers, situation, rate)
        verdict = "the best that fits" if fits else "nothing fits, the fastest"
        return decision(offer, situation, f"At {rate * 8e-6:.2f} Mbit/s {verdict}.")

"""Ours: the paper's Eq. 4 as a chance constraint.

Among the offers whose probability of meeting the deadline reaches the target, the one with the
highest expected quality *in time*: quality times that probability, so that a hundredth of quality
is not bought with a tenth of certainty. Ties go to fewer bytes. If none reaches the target, the
likeliest, and if none has a chance at all, the one that is done soonest; the reason says so. Owns
that rule; the probabilities are the forecast's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from scout_core.control.offers import Offer
from scout_core.control.policy import (
    Decision,
    Situation,
    decision,
    meeting_probability,
    require_offers,
    ttft_s,
)

TIE: Final = 1e-6
"""Expected qualities this close are equal; no profile is measured that finely."""
HOPELESS: Final = 0.001
"""Below it the answer is late whatever is done; then it had better not be very late."""


@dataclass(frozen=True, slots=True)
class _Rated:
    """An offer and its probability of being in time."""

    offer: Offer
    probability: float

    @property
    def value(self) -> float:
        return self.offer.quality * self.probability

    def beats(self, other: _Rated) -> bool:
        """More expected quality, or as much with fewer bytes."""
        if abs(self.value - other.value) > TIE:
            return self.value > other.value
        return self.offer.payload_bytes < other.offer.payload_bytes


@dataclass(frozen=True, slots=True)
class ChanceConstraintPolicy:
    """Highest quality with P(first token by the deadline) ≥ the situation's target."""

    name: str = "ours"

    def choose(self, offers: Sequence[Offer], situation: Situation) -> Decision:
        require_offers(offers)
        target = situation.target_probability
        best: _Rated | None = None
        likeliest = _Rated(offers[0], -1.0)
        for offer in sorted(offers, key=lambda offer: (-offer.quality, offer.payload_bytes)):
            if best is not None and offer.quality < best.value - TIE:
                break  # even when certain, neither this nor any later one is worth more
            rated = _Rated(offer, meeting_probability(offer, situation))
            if rated.probability >= target and (best is None or rated.beats(best)):
                best = rated
            if rated.probability > likeliest.probability:
                likeliest = rated
        if best is not None:
            return decision(
                best.offer,
                situation,
                f"Best quality that meets {situation.deadline_s:g} s with at least {target:.0%}.",
                best.probability,
            )
        if likeliest.probability < HOPELESS:
            return decision(
                _soonest(offers, situation),
                situation,
                f"No mode can meet {situation.deadline_s:g} s; this one is done soonest.",
            )
        return decision(
            likeliest.offer,
            situation,
            f"No mode meets {situation.deadline_s:g} s with {target:.0%}; this one is the "
            f"likeliest ({likeliest.probability:.0%}).",
            likeliest.probability,
        )


def _soonest(offers: Sequence[Offer], situation: Situation) -> Offer:
    rate = situation.forecast.median_bytes_per_s
    return min(offers, key=lambda offer: ttft_s(offer, situation, offer.payload_bytes / rate))

"""Ours: the paper's Eq. 4 as a chance constraint.

Highest expected quality among the offers whose probability of meeting the deadline reaches the
target; ties go to fewer bytes. If none reaches it, the most probable one, and the reason says so.
Owns that rule; the probabilities are the forecast's.
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
)

QUALITY_TIE: Final = 1e-9


@dataclass(frozen=True, slots=True)
class ChanceConstraintPolicy:
    """Highest quality with P(first token by the deadline) ≥ the situation's target."""

    name: str = "ours"

    def choose(self, offers: Sequence[Offer], situation: Situation) -> Decision:
        require_offers(offers)
        best: Offer | None = None
        likeliest, likeliest_probability = offers[0], -1.0
        for offer in offers:
            if best is not None and not _better(offer, best):
                continue
            probability = meeting_probability(offer, situation)
            if probability >= situation.target_probability:
                best = offer
            elif best is None and _likelier(offer, probability, likeliest, likeliest_probability):
                likeliest, likeliest_probability = offer, probability
        if best is not None:
            return decision(
                best,
                situation,
                f"Best quality that meets {situation.deadline_s:g} s with at least "
                f"{situation.target_probability:.0%}.",
            )
        return decision(
            likeliest,
            situation,
            f"No mode meets {situation.deadline_s:g} s with {situation.target_probability:.0%}; "
            f"this one is the likeliest ({likeliest_probability:.0%}).",
        )


def _better(offer: Offer, than: Offer) -> bool:
    if offer.quality > than.quality + QUALITY_TIE:
        return True
    tied = offer.quality >= than.quality - QUALITY_TIE
    return tied and offer.payload_bytes < than.payload_bytes


def _likelier(offer: Offer, probability: float, than: Offer, than_probability: float) -> bool:
    if probability != than_probability:
        return probability > than_probability
    # Usually both are 0: nothing can make it, so at least be quick and cheap.
    return offer.edge_s + offer.cloud_s < than.edge_s + than.cloud_s

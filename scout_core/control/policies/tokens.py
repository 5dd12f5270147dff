"""Send the tokens and let the cloud do everything: the honest baseline.

Owns the choice of scout mode at retention 1.0, whatever link and deadline are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scout_core.control.offers import FULL_RETENTION, Offer
from scout_core.control.policy import Decision, Situation, decision
from scout_core.errors import ModeUnavailableError
from scout_core.modes import Mode


@dataclass(frozen=True, slots=True)
class TokensPolicy:
    """Scout mode at retention 1.0."""

    name: str = "tokens"

    def choose(self, offers: Sequence[Offer], situation: Situation) -> Decision:
        for offer in offers:
            if offer.mode is Mode.SCOUT and offer.retention >= FULL_RETENTION:
                return decision(offer, situation, "All tokens are sent and the cloud prefills.")
        raise ModeUnavailableError(
            "Sending all tokens needs scout mode at retention 1.0, which this request excludes."
        )

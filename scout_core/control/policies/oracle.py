"""The clairvoyant bound: knows how long every transfer will really take.

Owns the best choice in hindsight. It does not exist outside studies: it needs the true link.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scout_core.control.offers import Offer
from scout_core.control.policy import Decision, Situation, require_offers, ttft_s


@dataclass(frozen=True, slots=True)
class OraclePolicy:
    """Highest quality whose true time meets the deadline (fewer bytes on a tie), else the fastest.

    Attributes:
        transfer_time_s: true seconds of a payload of some bytes, whose first byte leaves some
            seconds after now; the round trip included.
    """

    transfer_time_s: Callable[[int, float], float]
    name: str = "oracle"

    def choose(self, offers: Sequence[Offer], situation: Situation) -> Decision:
        require_offers(offers)
        timed = [(offer, self._true_ttft_s(offer, situation)) for offer in offers]
        fitting = [pair for pair in timed if pair[1] <= situation.deadline_s]
        if fitting:
            offer, time_s = max(fitting, key=lambda pair: (pair[0].quality, -pair[0].payload_bytes))
            return Decision(offer, time_s, 1.0, "Best quality that will meet the deadline.")
        offer, time_s = min(timed, key=lambda pair: pair[1])
        return Decision(offer, time_s, 0.0, "Nothing will meet the deadline; this is the fastest.")

    def _true_ttft_s(self, offer: Offer, situation: Situation) -> float:
        start_s = situation.edge_queue_s + offer.edge_s
        return ttft_s(offer, situation, self.transfer_time_s(offer.payload_bytes, start_s))

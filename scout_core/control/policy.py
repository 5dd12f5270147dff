"""What a mode policy is: offers and a situation in, one decision out.

This module owns the arithmetic from an offer to a predicted first-token time, which all policies
share, and the interface. It does not know how any policy weighs quality against risk; each is one
file in ``policies``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from scout_core.control.forecast import TransferForecast
from scout_core.control.offers import Offer
from scout_core.errors import ModeUnavailableError

MEDIAN: Final = 0.5
SQRT_3: Final = math.sqrt(3.0)
CERTAIN: Final = 0.999
FIRST_BLOCK_SHARE: Final = 1.0 / 16.0
"""Encoding is overlapped with sending block by block; the first block's encoding is not."""


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything but the offers that a decision depends on.

    Attributes:
        forecast: the uplink from now on.
        deadline_s: seconds from the request's arrival to when the first token is due.
        elapsed_s: seconds since the arrival.
        edge_queue_s: wait before the edge's worker takes this request.
        cloud_queue_s: wait before the cloud's worker takes it.
        round_trip_s: smallest round trip; half of it brings the first token back.
        compute_error: relative standard deviation of predicted compute times
            (``CostModel.relative_error``).
        target_probability: the least probability of meeting the deadline that is acceptable.
    """

    forecast: TransferForecast
    deadline_s: float
    elapsed_s: float = 0.0
    edge_queue_s: float = 0.0
    cloud_queue_s: float = 0.0
    round_trip_s: float = 0.0
    compute_error: float = 0.05
    target_probability: float = 0.9


@dataclass(frozen=True, slots=True)
class Decision:
    """A chosen offer and what is expected of it.

    Attributes:
        offer: the choice.
        predicted_ttft_s: median seconds from arrival to first token.
        probability: that the deadline is met, as far as the policy can tell.
        reason: one sentence for people.
    """

    offer: Offer
    predicted_ttft_s: float
    probability: float
    reason: str


class Policy(Protocol):
    """A way of choosing. Implementations hold no state between requests."""

    @property
    def name(self) -> str:
        """The name in reports and settings."""
        ...

    def choose(self, offers: Sequence[Offer], situation: Situation) -> Decision:
        """Picks one offer.

        Raises:
            ModeUnavailableError: no offer suits this policy.
        """
        ...


def compute_s(offer: Offer, situation: Situation) -> float:
    """Seconds from arrival to first token that no link can shorten."""
    return (
        situation.elapsed_s
        + situation.edge_queue_s
        + offer.edge_s
        + offer.encode_s * FIRST_BLOCK_SHARE
        + situation.cloud_queue_s
        + offer.cloud_s
    )


def ttft_s(offer: Offer, situation: Situation, transfer_s: float) -> float:
    """Seconds from arrival to first token if the payload's transfer takes ``transfer_s``.

    The transfer includes one round trip (half up with the last byte, half down with the token).
    """
    return compute_s(offer, situation) + max(transfer_s, offer.encode_s)


def meeting_probability(offer: Offer, situation: Situation) -> float:
    """Probability that the first token meets the deadline.

    The computation's error is taken in by three-point Gauss-Hermite quadrature over a normal
    distribution; where even the late point is as good as certain, it alone is looked at.
    """
    slack_s = situation.deadline_s - compute_s(offer, situation)
    spread_s = SQRT_3 * situation.compute_error * (offer.edge_s + offer.cloud_s)
    late = _within(offer, situation, slack_s - spread_s)
    if late >= CERTAIN or spread_s == 0.0:
        return late
    middle = _within(offer, situation, slack_s)
    early = _within(offer, situation, slack_s + spread_s)
    return (late + 4.0 * middle + early) / 6.0


def _within(offer: Offer, situation: Situation, slack_s: float) -> float:
    if slack_s <= 0.0 or offer.encode_s > slack_s:
        return 0.0
    begins_in_s = situation.edge_queue_s + offer.edge_s
    return situation.forecast.probability_within(offer.payload_bytes, slack_s, begins_in_s)


def decision(
    offer: Offer, situation: Situation, reason: str, probability: float | None = None
) -> Decision:
    """A decision with its median time, and its probability unless it is known already."""
    transfer_s = situation.forecast.transfer_time_s(offer.payload_bytes, MEDIAN)
    if probability is None:
        probability = meeting_probability(offer, situation)
    return Decision(offer, ttft_s(offer, situation, transfer_s), probability, reason)


def require_offers(offers: Sequence[Offer]) -> None:
    """Refuses an empty list.

    Raises:
        ModeUnavailableError: nothing to choose from.
    """
    if not offers:
        raise ModeUnavailableError(
            "No mode is feasible for this request; allow mode auto or lift the forced retention."
        )

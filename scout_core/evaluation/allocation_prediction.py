"""What virtual time predicts of a case that processes play.

This module owns what the two must have in common: the deadline as the cloud schedules it, the fixed
times that the cloud adds, and that opens cross the uplink one after the other. The physics are
``allocation_simulation``'s, the processes ``allocation_real``'s.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from scout_core.allocation.offer import Offer
from scout_core.allocation.policy import SchedulerPolicy
from scout_core.evaluation.allocation_contenders import SchedulerContender
from scout_core.evaluation.allocation_real import RealCase, mode_shares
from scout_core.evaluation.allocation_recording import Recording
from scout_core.evaluation.allocation_simulation import Played, play
from scout_core.evaluation.allocation_workload import PlannedRequest, Workload
from scout_core.protocol.credit import credit_lag_s
from scout_core.protocol.opening import Offer as SessionOffer
from scout_core.testbed.schedule import BITS_PER_BYTE, BITS_PER_MEGABIT, RateSchedule

FIRST_TOKEN_S: Final = 0.006
"""Cloud time after the last byte; measured (``first_token_after_delivery_s`` of the processes)."""
OPEN_BYTES: Final = 600
"""Of an open on the link; measured: on 1 Mbit/s eight that were sent at once arrive 5 ms apart."""
ORDERS: Final = 16
"""Rounds, each with the agents' opens in another random order: who is first differs in reality,
too, and early ones are chosen for while they seem alone."""
ROUNDING: Final = 1e-3
"""A context is complete when less than a thousandth is missing."""


def predict(case: RealCase, recording: Recording) -> dict[str, Any]:
    """Compliance and how much of all contexts crosses in each mode, under our scheduler.

    In virtual time a byte arrives when it is promised, in reality a round trip and a grant later:
    that is part of the fixed times, here and there.
    """
    cloud_s = FIRST_TOKEN_S + credit_lag_s(case.capacity_bytes_per_s, case.round_trip_s)
    terms = tuple(_study_offer(offer, cloud_s) for offer in recording.offers())
    requests = _requests(case, terms)
    mbps = case.capacity_bytes_per_s * BITS_PER_BYTE / BITS_PER_MEGABIT
    workload = Workload(requests, RateSchedule.constant(mbps), case.capacity_bytes_per_s)
    played = play(workload, SchedulerContender(workload, SchedulerPolicy()))
    deadlines = np.array([case.deadlines_s[request.agent] for request in requests])
    in_time = played.first_token_s <= deadlines - case.round_trip_s
    return {"compliance": float(in_time.mean()), "modes": mode_shares(_parts(played, terms))}


def _requests(case: RealCase, terms: tuple[Offer, ...]) -> tuple[PlannedRequest, ...]:
    random = np.random.default_rng(0)
    apart_s = OPEN_BYTES / case.capacity_bytes_per_s
    return tuple(
        PlannedRequest(
            int(agent),
            case.period_s * turn + apart_s * place,
            (1 - case.reserve) * case.deadlines_s[agent] - case.round_trip_s,
            terms,
        )
        for turn in range(ORDERS)
        for place, agent in enumerate(random.permutation(len(case.deadlines_s)))
    )


def _parts(played: Played, terms: tuple[Offer, ...]) -> list[dict[str, float]]:
    """Per request; what did not cross as KV is left to the last mode."""
    parts = [
        {terms[offer].mode.value: part for offer, part in kept.items()} for kept in played.parts
    ]
    for number, kept in enumerate(parts):
        rest = 1.0 - sum(kept.values())
        if rest > ROUNDING:
            last = terms[played.offers[number]].mode.value
            kept[last] = kept.get(last, 0.0) + rest
    return parts


def _study_offer(offer: SessionOffer, cloud_s: float) -> Offer:
    size, quality = offer.payload_bytes, offer.expected_quality
    return Offer(offer.mode, offer.retention, size, quality, offer.edge_s, cloud_s)

"""What the live requests' offers still cost and are worth at a given moment.

Bytes already received count: whole-KV offers continue each other's prefix (DESIGN §3), so after a
fraction f of the context has crossed in one of them, each costs (1 − f) of its payload and is worth
the received part's quality plus (1 − f) of its own. Other offers count only their own bytes.

Pure functions of a ``RequestTable`` and of the slots ``[requests]`` that are asked for.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from scout_core.allocation.flows import Flows
from scout_core.allocation.problem import (
    TOLERANCE,
    AllocationProblem,
    BoolArray,
    FloatArray,
    IntArray,
    chosen,
)
from scout_core.allocation.requests import OVERRUN_BYTES, RequestTable, Standing

STALLED_S: Final = 0.5
"""Who has credit and sends nothing for so long computes, is cut off or idles on purpose: others
have its share until it sends. Longer than most round trips and what credit takes to gather."""
LARGEST_BLOCK: Final = 0.5
"""Part of a payload that a single block may be, of a short context."""
TRICKLE_BYTES: Final = 10.0
"""Expected of one that does not turn: with ``SharingPolicy.quantum_s`` the guaranteed 2 kB/s."""
DONE_BYTES: Final = 1.0
"""There is no part of a byte to wait for."""
TAIL_BYTES: Final = 1_024.0
"""Expected of a payload that has begun and is not finished, in any of its offers: declared sizes
are estimates, so that one may be complete by its size and yet go on."""


def problem_of(
    table: RequestTable, slots: IntArray, now: float, capacity_bytes_per_s: float
) -> AllocationProblem:
    """What the offers of ``slots`` still cost and are worth at ``now``."""
    left, quality = _outlook(table, slots)
    window_s = _windows_s(table, slots, now)
    # What was promised in full only has to arrive.
    arriving_s = np.maximum(window_s, (table.deadline_s[slots] - now)[:, None])
    return AllocationProblem(
        left,
        quality * table.weight[slots][:, None],
        np.where(left > 0, window_s, arriving_s),
        table.limit_bytes_per_s[slots],
        capacity_bytes_per_s,
    )


def flows_of(table: RequestTable, slots: IntArray, choice: IntArray, now: float) -> Flows:
    """The chosen transfers as they stand at ``now``. One that sends nothing on its credit has no
    more to send for the present, nor has one without a stream."""
    remaining, open_ended = _not_promised(table, slots, choice)
    return Flows(
        remaining_bytes=remaining,
        open_ended=open_ended,
        window_s=chosen(_windows_s(table, slots, now), choice),
        due_at_s=table.deadline_s[slots] - _of(table.offers.cloud_s, slots, choice),
        ready=(choice >= 0)
        & (ready_at_s(table, slots, choice) <= now)
        & ~_is_stalled(table, slots, now),
        late=table.standing[slots] == Standing.LATE,
        arrived_s=table.arrived_s[slots],
        limit_bytes_per_s=table.limit_bytes_per_s[slots],
        now=now,
    )


def ready_at_s(table: RequestTable, slots: IntArray, choice: IntArray) -> FloatArray:
    """``[requests]``: when the edge has the payload; bytes that arrived prove that it has."""
    ready = table.arrived_s[slots] + _of(table.offers.edge_s, slots, choice)
    return np.where(table.has_begun(slots), table.arrived_s[slots], ready)


def least_remaining(table: RequestTable, slots: IntArray) -> IntArray:
    """``[requests]``: the offer with the fewest bytes left, the one being sent among equals."""
    remaining, _ = _outlook(table, slots)
    sending = table.sending[slots]
    begun = np.flatnonzero(sending >= 0)
    remaining[begun, sending[begun]] *= 1 - TOLERANCE
    remaining[begun, sending[begun]] -= TOLERANCE
    return remaining.argmin(axis=1).astype(np.int64)


def _not_promised(
    table: RequestTable, slots: IntArray, choice: IntArray
) -> tuple[FloatArray, BoolArray]:
    """``[requests]`` each: of what remains, the bytes that no credit was given for yet, and
    whether nobody knows how much that is, which is then expected to be a little, whatever was
    promised, and does not come in drops.

    So it is with a tail, where all of the declared size is there and more comes; and with a
    block that was begun in another offer and must be finished before its agent can turn to
    indices. Not for ever, or whoever ignores its grants would send as it likes.
    """
    sending, begun = table.sending[slots], table.has_begun(slots)
    coming = _on_the_way(table, slots)
    tail = begun & (_left_of(table, slots, choice, np.zeros(slots.size)) < DONE_BYTES)
    turning = begun & (sending != choice) & ~_continues(table, slots, choice)
    since = table.promised_bytes[slots] - table.promised_before_bytes[slots]
    tolerated = LARGEST_BLOCK * _of(table.offers.payload_bytes, slots, sending)
    stubborn = turning & (since >= np.maximum(tolerated, OVERRUN_BYTES))
    left = _left_of(table, slots, choice, coming)
    remaining = np.where(tail | turning, TAIL_BYTES, left)
    return np.where(stubborn, TRICKLE_BYTES, remaining), tail | turning


def _is_stalled(table: RequestTable, slots: IntArray, now: float) -> BoolArray:
    since_s = np.maximum(table.progressed_s[slots], table.awaited_s[slots])
    silent = (_on_the_way(table, slots) > 0) & (now - since_s > STALLED_S)
    return silent | (table.paused[slots] > 0)


def _of(column: FloatArray, slots: IntArray, choice: IntArray, missing: float = 0.0) -> FloatArray:
    """``[requests]``: a figure of the chosen offers, ``missing`` where nothing is chosen."""
    return np.where(choice >= 0, column[slots, np.maximum(choice, 0)], missing)


def _on_the_way(table: RequestTable, slots: IntArray) -> FloatArray:
    """``[requests]``: bytes that were promised and have not arrived."""
    return np.maximum(table.promised_bytes[slots] - table.received_bytes[slots], 0.0)


def _continues(table: RequestTable, slots: IntArray, choice: IntArray) -> BoolArray:
    """``[requests]``: whether the chosen offers are whole KV; not where nothing is chosen."""
    return table.offers.continues[slots, np.maximum(choice, 0)] & (choice >= 0)


def _gained(table: RequestTable, slots: IntArray, coming: FloatArray) -> FloatArray:
    """``[requests]``: the part of the context that ``coming`` bytes more of what is being sent
    bring, where that is whole KV."""
    sending = table.sending[slots]
    size = _of(table.offers.payload_bytes, slots, sending, 1.0)
    part = np.where(_continues(table, slots, sending), coming / size, 0.0)
    return np.minimum(part, 1.0 - table.kept_fraction[slots])


def _left_of(
    table: RequestTable, slots: IntArray, choice: IntArray, coming: FloatArray
) -> FloatArray:
    """``[requests]``: bytes left of the chosen offers by declared sizes, once ``coming`` bytes
    more have arrived in the offers being sent."""
    kept = table.kept_fraction[slots] + _gained(table, slots, coming)
    used = np.where(
        table.sending[slots] == choice, table.received_of_offer_bytes[slots] + coming, 0.0
    )
    payload = _of(table.offers.payload_bytes, slots, choice)
    whole_kv = _continues(table, slots, choice)
    return np.where(whole_kv, payload * (1.0 - kept), np.maximum(payload - used, 0.0))


def _outlook(table: RequestTable, slots: IntArray) -> tuple[FloatArray, FloatArray]:
    """Bytes left by the declared sizes and quality per offer, ``[requests, offers]`` each, once
    what was promised has arrived in the offers being sent."""
    offers, coming = table.offers, _on_the_way(table, slots)
    payload, continues = offers.payload_bytes[slots], offers.continues[slots]
    gained = _gained(table, slots, coming)
    left = (1.0 - table.kept_fraction[slots] - gained)[:, None]
    quality, sending = offers.quality[slots], table.sending[slots]
    kept = table.kept_quality[slots] + gained * _of(offers.quality, slots, sending)
    quality = np.where(continues, kept[:, None] + left * quality, quality)
    remaining = np.where(continues, np.where(continues, payload, 0.0) * left, payload)
    sent = np.flatnonzero((sending >= 0) & ~_continues(table, slots, sending))
    own = remaining[sent, sending[sent]] - table.received_of_offer_bytes[slots[sent]] - coming[sent]
    remaining[sent, sending[sent]] = np.maximum(own, 0.0)
    return remaining, quality


def _windows_s(table: RequestTable, slots: IntArray, now: float) -> FloatArray:
    offers = table.offers
    ahead_s = table.arrived_s[slots][:, None] + offers.edge_s[slots] - now
    ahead_s = np.where(table.has_begun(slots)[:, None], 0.0, np.maximum(ahead_s, 0.0))
    return table.deadline_s[slots][:, None] - now - offers.cloud_s[slots] - ahead_s

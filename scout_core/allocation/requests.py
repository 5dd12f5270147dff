"""The live requests of one uplink group, as arrays that grow and are reused.

This module owns what is known of each request and what its offers still cost at a given moment. It
does not decide anything. Rows are *slots*: a request keeps its slot until it is removed.

Bytes already received count: whole-KV offers continue each other's prefix (DESIGN §3), so after a
fraction f of the context has crossed in one of them, each costs (1 − f) of its payload and is worth
the received part's quality plus (1 − f) of its own. Other offers count only their own bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from scout_core.allocation.events import RequestArrived
from scout_core.allocation.flows import Flows
from scout_core.allocation.problem import (
    TOLERANCE,
    UNSERVED,
    AllocationProblem,
    BoolArray,
    FloatArray,
    IntArray,
    chosen,
)
from scout_core.errors import LocalProtocolError, RemoteProtocolError
from scout_core.modes import SessionId

_Scalar = TypeVar("_Scalar", np.float64, np.int64)

FIRST_SLOTS: Final = 16
OVERRUN_TOLERANCE: Final = 0.02
"""A payload may be so much larger than declared: sizes of coded KV are estimates."""
OVERRUN_BYTES: Final = 65_536
"""And so much in any case."""
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


class Standing(IntEnum):
    """Where a request stands; small integers, because they live in an array."""

    NEW = 0
    """Not yet granted anything."""
    SERVED = 1
    """Granted, to be in time."""
    LATE = 2
    """Granted once, cannot be in time; best effort."""


@dataclass(slots=True, eq=False)
class _Columns:
    """Per slot and offer, ``[slots, offers]``; empty columns hold an infinite payload."""

    payload_bytes: FloatArray
    quality: FloatArray
    edge_s: FloatArray
    cloud_s: FloatArray
    continues: BoolArray


class RequestTable:
    """Slots for requests; every array is indexed by slot.

    Attributes:
        standing, incumbent: ``[slots]`` the request's standing, and the offer it was granted for,
            ``UNSERVED`` if none yet.
        weight, deadline_s, arrived_s, limit_bytes_per_s, progressed_s: ``[slots]``.
        overrun_bytes: ``[slots]`` received beyond what the offer declared.
    """

    def __init__(self) -> None:
        self._slot_of: dict[SessionId, int] = {}
        self._requests: list[RequestArrived | None] = []
        self._free: list[int] = []
        empty = np.zeros((0, 1))
        self._columns = _Columns(empty, empty, empty, empty, empty.astype(np.bool_))
        self.standing = np.zeros(0, dtype=np.int64)
        self.incumbent = np.zeros(0, dtype=np.int64)
        self._sending = np.zeros(0, dtype=np.int64)
        self.weight = np.zeros(0)
        self.deadline_s = np.zeros(0)
        self.arrived_s = np.zeros(0)
        self.limit_bytes_per_s = np.zeros(0)
        self.progressed_s = np.zeros(0)
        self.overrun_bytes = np.zeros(0)
        self._received = np.zeros(0)
        self._promised = np.zeros(0)
        self._promised_before = np.zeros(0)
        self._awaited_s = np.zeros(0)
        self._paused = np.zeros(0, dtype=np.int64)
        self._received_of_offer = np.zeros(0)
        self._kept_fraction = np.zeros(0)
        self._kept_quality = np.zeros(0)

    def __len__(self) -> int:
        return len(self._slot_of)

    def __contains__(self, session: SessionId) -> bool:
        return session in self._slot_of

    def slot(self, session: SessionId) -> int:
        """The slot of a live session; KeyError if there is none."""
        return self._slot_of[session]

    def live_slots(self) -> IntArray:
        """All slots in use, in the order of arrival."""
        return np.fromiter(self._slot_of.values(), dtype=np.int64, count=len(self._slot_of))

    def request(self, slot: int) -> RequestArrived:
        """What arrived in a slot that is in use."""
        request = self._requests[slot]
        if request is None:
            raise LocalProtocolError(f"Slot {slot} of the request table is not in use.")
        return request

    def add(
        self, request: RequestArrived, *, weight: float, limit_bytes_per_s: float, now: float
    ) -> int:
        """Takes a request in and returns its slot.

        Raises:
            LocalProtocolError: the session is there already.
        """
        if request.session in self._slot_of:
            raise LocalProtocolError(f"Session {request.session} is scheduled already.")
        if not self._free:
            self._grow(max(FIRST_SLOTS, 2 * len(self._requests)))
        self._widen(len(request.offers))
        slot = self._free.pop()
        self._slot_of[request.session] = slot
        self._requests[slot] = request
        self._write_offers(slot, request)
        self.standing[slot] = Standing.NEW
        self.incumbent[slot] = self._sending[slot] = UNSERVED
        self.weight[slot] = weight
        self.deadline_s[slot] = request.deadline_at_s
        self.arrived_s[slot] = self.progressed_s[slot] = self._awaited_s[slot] = now
        self.limit_bytes_per_s[slot] = limit_bytes_per_s
        self.overrun_bytes[slot] = self._received[slot] = self._received_of_offer[slot] = 0.0
        self._kept_fraction[slot] = self._kept_quality[slot] = 0.0
        self._promised[slot] = self._promised_before[slot] = 0.0
        self._paused[slot] = 0
        return slot

    def remove(self, session: SessionId) -> None:
        """Frees the slot of a live session; KeyError if there is none."""
        slot = self._slot_of.pop(session)
        self._requests[slot] = None
        self._columns.payload_bytes[slot] = np.inf
        self._free.append(slot)

    def advance(self, session: SessionId, received_bytes: int, now: float) -> float:
        """Books progress and returns how many bytes are new; going backwards is ignored."""
        slot = self._slot_of[session]
        new = max(float(received_bytes) - float(self._received[slot]), 0.0)
        offer = int(self._sending[slot])
        if new == 0.0:
            return 0.0
        self._received[slot] += new
        self.progressed_s[slot] = now
        if offer == UNSERVED:
            return new
        self._received_of_offer[slot] += new
        payload = float(self._columns.payload_bytes[slot, offer])
        if self._columns.continues[slot, offer]:
            gained = min(new / payload, 1.0 - float(self._kept_fraction[slot]))
            self._kept_fraction[slot] += gained
            self._kept_quality[slot] += gained * self._columns.quality[slot, offer]
            self.overrun_bytes[slot] += new - gained * payload
        else:
            self.overrun_bytes[slot] = max(float(self._received_of_offer[slot]) - payload, 0.0)
        return new

    def promise(self, session: SessionId, promised_bytes: int, now: float) -> None:
        """Notes how much the session may have sent in all."""
        slot = self._slot_of[session]
        if promised_bytes > self._received[slot] >= self._promised[slot]:
            self._awaited_s[slot] = now
        self._promised[slot] = promised_bytes

    def pause(self, session: SessionId, *, paused: bool) -> None:
        """Notes whether credit can reach the agent at all."""
        self._paused[self._slot_of[session]] = paused

    def overran(self, session: SessionId) -> bool:
        """Whether clearly more arrived than the offer declared."""
        slot = self._slot_of[session]
        offer = max(int(self._sending[slot]), 0)
        allowed = OVERRUN_BYTES + OVERRUN_TOLERANCE * self._columns.payload_bytes[slot, offer]
        return bool(self.overrun_bytes[slot] > allowed)

    def adopt(self, slots: IntArray, choice: IntArray) -> None:
        """Makes ``choice`` the offers granted; a request that has not begun starts in its."""
        changed = slots[self.incumbent[slots] != choice]
        self._promised_before[changed] = self._promised[changed]
        self.incumbent[slots] = choice
        fresh = slots[self._received[slots] == 0]
        self._sending[fresh] = self.incumbent[fresh]

    def switch(self, session: SessionId, offer: int) -> None:
        """From here on the agent sends another offer; a selection starts its count anew.

        Raises:
            RemoteProtocolError: there is no such offer.
        """
        slot = self._slot_of[session]
        if not 0 <= offer < len(self.request(slot).offers):
            raise RemoteProtocolError(
                f"Session {session} switched to offer {offer}, which it does not have."
            )
        if self._sending[slot] != offer:
            self._sending[slot] = offer
            self._received_of_offer[slot] = 0.0

    def problem(self, slots: IntArray, now: float, capacity: float) -> AllocationProblem:
        """What the offers of ``slots`` still cost and are worth at ``now``."""
        left, quality = self._outlook(slots, self._on_the_way(slots))
        window_s = self._windows_s(slots, now)
        # What was promised in full only has to arrive.
        arriving_s = np.maximum(window_s, (self.deadline_s[slots] - now)[:, None])
        return AllocationProblem(
            left,
            quality * self.weight[slots][:, None],
            np.where(left > 0, window_s, arriving_s),
            self.limit_bytes_per_s[slots],
            capacity,
        )

    def flows(self, slots: IntArray, choice: IntArray, now: float) -> Flows:
        """The chosen transfers as they stand at ``now``. One that sends nothing on its credit has
        no more to send for the present, nor has one without a stream."""
        remaining, open_ended = self._not_promised(slots, choice)
        return Flows(
            remaining_bytes=remaining,
            open_ended=open_ended,
            window_s=chosen(self._windows_s(slots, now), choice),
            due_at_s=self.deadline_s[slots] - chosen(self._columns.cloud_s[slots], choice),
            ready=(choice >= 0)
            & (self.ready_at_s(slots, choice) <= now)
            & ~self._is_stalled(slots, now),
            late=self.standing[slots] == Standing.LATE,
            arrived_s=self.arrived_s[slots],
            limit_bytes_per_s=self.limit_bytes_per_s[slots],
            now=now,
        )

    def has_begun(self, slots: IntArray) -> BoolArray:
        """``[slots]``: whether any of its payload has arrived."""
        return self._received[slots] > 0

    def ready_at_s(self, slots: IntArray, choice: IntArray) -> FloatArray:
        """``[slots]``: when the edge has the payload; bytes that arrived prove that it has."""
        ready = self.arrived_s[slots] + chosen(self._columns.edge_s[slots], choice)
        return np.where(self._received[slots] > 0, self.arrived_s[slots], ready)

    def fixed_s(self, slot: int) -> FloatArray:
        """``[offers]``: edge and cloud time of a new request's offers; inf for empty columns."""
        fixed = self._columns.edge_s[slot] + self._columns.cloud_s[slot]
        return np.where(np.isfinite(self._columns.payload_bytes[slot]), fixed, np.inf)

    def least_remaining(self, slots: IntArray) -> IntArray:
        """``[slots]``: the offer with the fewest bytes left, the one being sent among equals."""
        remaining, _ = self._outlook(slots, self._on_the_way(slots))
        sending = self._sending[slots]
        begun = np.flatnonzero(sending >= 0)
        remaining[begun, sending[begun]] *= 1 - TOLERANCE
        remaining[begun, sending[begun]] -= TOLERANCE
        return remaining.argmin(axis=1).astype(np.int64)

    def _not_promised(self, slots: IntArray, choice: IntArray) -> tuple[FloatArray, BoolArray]:
        """``[slots]`` each: of what remains, the bytes that no credit was given for yet, and
        whether nobody knows how much that is, which is then expected to be a little, whatever was
        promised, and does not come in drops.

        So it is with a tail, where all of the declared size is there and more comes; and with a
        block that was begun in another offer and must be finished before its agent can turn to
        indices. Not for ever, or whoever ignores its grants would send as it likes.
        """
        sending, begun = self._sending[slots], self.has_begun(slots)
        declared, _ = self._outlook(slots, np.zeros(slots.size))
        tail = begun & (chosen(declared, choice) < DONE_BYTES)
        continues = chosen(self._columns.continues[slots].astype(np.float64), choice) > 0
        turning = begun & (sending != choice) & ~continues
        since = self._promised[slots] - self._promised_before[slots]
        tolerated = LARGEST_BLOCK * chosen(self._columns.payload_bytes[slots], sending)
        stubborn = turning & (since >= np.maximum(tolerated, OVERRUN_BYTES))
        left, _ = self._outlook(slots, self._on_the_way(slots))
        remaining = np.where(tail | turning, TAIL_BYTES, chosen(left, choice))
        return np.where(stubborn, TRICKLE_BYTES, remaining), tail | turning

    def _is_stalled(self, slots: IntArray, now: float) -> BoolArray:
        since_s = np.maximum(self.progressed_s[slots], self._awaited_s[slots])
        silent = (self._on_the_way(slots) > 0) & (now - since_s > STALLED_S)
        return silent | (self._paused[slots] > 0)

    def _on_the_way(self, slots: IntArray) -> FloatArray:
        """``[slots]``: bytes that were promised and have not arrived."""
        return np.maximum(self._promised[slots] - self._received[slots], 0.0)

    def _outlook(self, slots: IntArray, coming: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Bytes left by the declared sizes and quality per offer, ``[slots, offers]`` each, once
        ``coming`` ``[slots]`` bytes more have arrived in the offers being sent."""
        payload, quality = self._columns.payload_bytes[slots], self._columns.quality[slots]
        continues, kept = self._columns.continues[slots], self._kept_fraction[slots].copy()
        kept_quality = self._kept_quality[slots].copy()
        offer = self._sending[slots]
        begun = np.flatnonzero((offer >= 0) & ((self._received[slots] > 0) | (coming > 0)))
        offer = offer[begun]
        in_whole_kv, size = continues[begun, offer], payload[begun, offer]
        gained = np.minimum(np.where(in_whole_kv, coming[begun] / size, 0.0), 1.0 - kept[begun])
        kept[begun] += gained
        kept_quality[begun] += gained * quality[begun, offer]
        left = (1.0 - kept)[:, None]
        quality = np.where(continues, kept_quality[:, None] + left * quality, quality)
        remaining = np.where(continues, np.where(continues, payload, 0.0) * left, payload)
        own = size - self._received_of_offer[slots[begun]] - coming[begun]
        own = np.where(in_whole_kv, remaining[begun, offer], np.maximum(own, 0.0))
        remaining[begun, offer] = own
        return remaining, quality

    def _windows_s(self, slots: IntArray, now: float) -> FloatArray:
        columns = self._columns
        ahead_s = self.arrived_s[slots][:, None] + columns.edge_s[slots] - now
        ahead_s = np.where(self._received[slots][:, None] > 0, 0.0, np.maximum(ahead_s, 0.0))
        return self.deadline_s[slots][:, None] - now - columns.cloud_s[slots] - ahead_s

    def _write_offers(self, slot: int, request: RequestArrived) -> None:
        columns, count = self._columns, len(request.offers)
        columns.payload_bytes[slot] = np.inf
        columns.quality[slot] = columns.edge_s[slot] = columns.cloud_s[slot] = 0.0
        columns.continues[slot] = False
        columns.payload_bytes[slot, :count] = [offer.payload_bytes for offer in request.offers]
        columns.quality[slot, :count] = [offer.quality for offer in request.offers]
        columns.edge_s[slot, :count] = [offer.edge_s for offer in request.offers]
        columns.cloud_s[slot, :count] = [offer.cloud_s for offer in request.offers]
        columns.continues[slot, :count] = [offer.continues_prefix for offer in request.offers]

    def _grow(self, slots: int) -> None:
        more = slots - len(self._requests)
        self._free.extend(range(slots - 1, len(self._requests) - 1, -1))
        self._requests.extend([None] * more)
        self.standing = _longer(self.standing, more)
        self.incumbent = _longer(self.incumbent, more)
        self._sending = _longer(self._sending, more)
        self.weight = _longer(self.weight, more)
        self.deadline_s = _longer(self.deadline_s, more)
        self.arrived_s = _longer(self.arrived_s, more)
        self.limit_bytes_per_s = _longer(self.limit_bytes_per_s, more)
        self.progressed_s = _longer(self.progressed_s, more)
        self.overrun_bytes = _longer(self.overrun_bytes, more)
        self._received = _longer(self._received, more)
        self._promised = _longer(self._promised, more)
        self._promised_before = _longer(self._promised_before, more)
        self._awaited_s = _longer(self._awaited_s, more)
        self._paused = _longer(self._paused, more)
        self._received_of_offer = _longer(self._received_of_offer, more)
        self._kept_fraction = _longer(self._kept_fraction, more)
        self._kept_quality = _longer(self._kept_quality, more)
        self._pad_columns(more, 0)

    def _widen(self, offers: int) -> None:
        missing = offers - self._columns.payload_bytes.shape[1]
        if missing > 0:
            self._pad_columns(0, missing)

    def _pad_columns(self, rows: int, columns: int) -> None:
        pad, old = ((0, rows), (0, columns)), self._columns
        self._columns = _Columns(
            np.pad(old.payload_bytes, pad, constant_values=np.inf),
            np.pad(old.quality, pad),
            np.pad(old.edge_s, pad),
            np.pad(old.cloud_s, pad),
            np.pad(old.continues, pad),
        )


def _longer(values: NDArray[_Scalar], more: int) -> NDArray[_Scalar]:
    return np.concatenate((values, np.zeros(more, dtype=values.dtype)))

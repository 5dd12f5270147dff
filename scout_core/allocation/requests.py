"""The live requests of one uplink group: what has happened to each.

This module owns the slots and books what comes in. It does not decide anything, and what the
offers still cost at a given moment is ``outlook``'s. Rows are *slots*: a request keeps its slot
until it is removed.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import numpy as np

from scout_core.allocation.columns import OfferColumns, RequestColumns
from scout_core.allocation.events import RequestArrived
from scout_core.allocation.problem import UNSERVED, BoolArray, IntArray
from scout_core.errors import LocalProtocolError, RemoteProtocolError
from scout_core.modes import SessionId

FIRST_SLOTS: Final = 16
OVERRUN_TOLERANCE: Final = 0.02
"""A payload may be so much larger than declared: sizes of coded KV are estimates."""
OVERRUN_BYTES: Final = 65_536
"""And so much in any case."""


class Standing(IntEnum):
    """Where a request stands; small integers, because they live in an array."""

    NEW = 0
    """Not yet granted anything."""
    SERVED = 1
    """Granted, to be in time."""
    LATE = 2
    """Granted once, cannot be in time; best effort."""


class RequestTable(RequestColumns):
    """Slots for requests; every array is indexed by slot, ``offers`` by slot and offer."""

    def __init__(self) -> None:
        super().__init__()
        self.offers = OfferColumns()
        self._slot_of: dict[SessionId, int] = {}
        self._requests: list[RequestArrived | None] = []
        self._free: list[int] = []

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
        missing = len(request.offers) - self.offers.payload_bytes.shape[1]
        if missing > 0:
            self.offers.pad(0, missing)
        slot = self._free.pop()
        self._slot_of[request.session] = slot
        self._requests[slot] = request
        self.offers.write(slot, request.offers)
        self.clear(slot)
        self.standing[slot] = Standing.NEW
        self.incumbent[slot] = self.sending[slot] = UNSERVED
        self.weight[slot] = weight
        self.limit_bytes_per_s[slot] = limit_bytes_per_s
        self.deadline_s[slot] = request.deadline_at_s
        self.arrived_s[slot] = self.progressed_s[slot] = self.awaited_s[slot] = now
        return slot

    def remove(self, session: SessionId) -> None:
        """Frees the slot of a live session; KeyError if there is none."""
        slot = self._slot_of.pop(session)
        self._requests[slot] = None
        self.offers.payload_bytes[slot] = np.inf
        self._free.append(slot)

    def advance(self, session: SessionId, received_bytes: int, now: float) -> float:
        """Books progress and returns how many bytes are new; going backwards is ignored."""
        slot = self._slot_of[session]
        new = max(float(received_bytes) - float(self.received_bytes[slot]), 0.0)
        offer = int(self.sending[slot])
        if new == 0.0:
            return 0.0
        self.received_bytes[slot] += new
        self.progressed_s[slot] = now
        if offer == UNSERVED:
            return new
        self.received_of_offer_bytes[slot] += new
        payload = float(self.offers.payload_bytes[slot, offer])
        if self.offers.continues[slot, offer]:
            gained = min(new / payload, 1.0 - float(self.kept_fraction[slot]))
            self.kept_fraction[slot] += gained
            self.kept_quality[slot] += gained * self.offers.quality[slot, offer]
            self.overrun_bytes[slot] += new - gained * payload
        else:
            self.overrun_bytes[slot] = max(float(self.received_of_offer_bytes[slot]) - payload, 0.0)
        return new

    def has_begun(self, slots: IntArray) -> BoolArray:
        """``[slots]``: whether any of its payload has arrived."""
        return self.received_bytes[slots] > 0

    def promise(self, session: SessionId, promised_bytes: int, now: float) -> None:
        """Notes how much the session may have sent in all."""
        slot = self._slot_of[session]
        if promised_bytes > self.received_bytes[slot] >= self.promised_bytes[slot]:
            self.awaited_s[slot] = now
        self.promised_bytes[slot] = promised_bytes

    def pause(self, session: SessionId, *, paused: bool) -> None:
        """Notes whether credit can reach the agent at all."""
        self.paused[self._slot_of[session]] = paused

    def overran(self, session: SessionId) -> bool:
        """Whether clearly more arrived than the offer declared."""
        slot = self._slot_of[session]
        offer = max(int(self.sending[slot]), 0)
        allowed = OVERRUN_BYTES + OVERRUN_TOLERANCE * self.offers.payload_bytes[slot, offer]
        return bool(self.overrun_bytes[slot] > allowed)

    def adopt(self, slots: IntArray, choice: IntArray) -> None:
        """Makes ``choice`` the offers granted; a request that has not begun starts in its."""
        changed = slots[self.incumbent[slots] != choice]
        self.promised_before_bytes[changed] = self.promised_bytes[changed]
        self.incumbent[slots] = choice
        fresh = slots[self.received_bytes[slots] == 0]
        self.sending[fresh] = self.incumbent[fresh]

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
        if self.sending[slot] != offer:
            self.sending[slot] = offer
            self.received_of_offer_bytes[slot] = 0.0

    def _grow(self, slots: int) -> None:
        more = slots - len(self._requests)
        self._free.extend(range(slots - 1, len(self._requests) - 1, -1))
        self._requests.extend([None] * more)
        self.lengthen(more)
        self.offers.pad(more, 0)

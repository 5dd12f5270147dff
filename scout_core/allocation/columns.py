"""What is known of the live requests of one uplink group, as arrays that grow and are reused.

Owns the arrays alone: what they mean and how they grow. What becomes of them when something happens
is ``requests``', what follows from them ``outlook``'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np

from scout_core.allocation.offer import Offer
from scout_core.allocation.problem import BoolArray, FloatArray, IntArray


def _no_figures() -> FloatArray:
    return np.zeros(0)


def _no_integers() -> IntArray:
    return np.zeros(0, dtype=np.int64)


@dataclass(slots=True, eq=False)
class RequestColumns:
    """Per slot, ``[slots]``.

    Attributes:
        standing: a ``Standing``.
        incumbent: the offer it was granted for, ``UNSERVED`` if none yet.
        sending: the offer that the agent sends, ``UNSERVED`` before its first grant.
        weight, limit_bytes_per_s, deadline_s, arrived_s: of the request, and since when it is here.
        received_bytes, progressed_s: of payload, and when the last of it came.
        received_of_offer_bytes: of the offer being sent.
        overrun_bytes: received beyond what the offer declared.
        promised_bytes: how much the agent may have sent in all.
        promised_before_bytes: when the incumbent was granted.
        awaited_s: since when there is credit for something that has not come.
        paused: whether no credit can reach the agent (1) or it can (0).
        kept_fraction, kept_quality: of the context that crossed in whole-KV offers; what that part
            is worth.
    """

    standing: IntArray = field(default_factory=_no_integers)
    incumbent: IntArray = field(default_factory=_no_integers)
    sending: IntArray = field(default_factory=_no_integers)
    weight: FloatArray = field(default_factory=_no_figures)
    limit_bytes_per_s: FloatArray = field(default_factory=_no_figures)
    deadline_s: FloatArray = field(default_factory=_no_figures)
    arrived_s: FloatArray = field(default_factory=_no_figures)
    received_bytes: FloatArray = field(default_factory=_no_figures)
    progressed_s: FloatArray = field(default_factory=_no_figures)
    received_of_offer_bytes: FloatArray = field(default_factory=_no_figures)
    overrun_bytes: FloatArray = field(default_factory=_no_figures)
    promised_bytes: FloatArray = field(default_factory=_no_figures)
    promised_before_bytes: FloatArray = field(default_factory=_no_figures)
    awaited_s: FloatArray = field(default_factory=_no_figures)
    paused: IntArray = field(default_factory=_no_integers)
    kept_fraction: FloatArray = field(default_factory=_no_figures)
    kept_quality: FloatArray = field(default_factory=_no_figures)

    def clear(self, slot: int) -> None:
        """Zeros in every column."""
        for column in fields(RequestColumns):
            getattr(self, column.name)[slot] = 0

    def lengthen(self, more: int) -> None:
        """So many slots more, with zeros."""
        for column in fields(RequestColumns):
            setattr(self, column.name, np.pad(getattr(self, column.name), (0, more)))


def _no_column() -> FloatArray:
    return np.zeros((0, 1))


@dataclass(slots=True, eq=False)
class OfferColumns:
    """Per slot and offer, ``[slots, offers]``; empty columns hold an infinite payload."""

    payload_bytes: FloatArray = field(default_factory=_no_column)
    quality: FloatArray = field(default_factory=_no_column)
    edge_s: FloatArray = field(default_factory=_no_column)
    cloud_s: FloatArray = field(default_factory=_no_column)
    continues: BoolArray = field(default_factory=lambda: np.zeros((0, 1), dtype=np.bool_))

    def write(self, slot: int, offers: Sequence[Offer]) -> None:
        """The offers of a request that takes a slot; there are enough columns for them."""
        count = len(offers)
        self.payload_bytes[slot] = np.inf
        self.quality[slot] = self.edge_s[slot] = self.cloud_s[slot] = 0.0
        self.continues[slot] = False
        self.payload_bytes[slot, :count] = [offer.payload_bytes for offer in offers]
        self.quality[slot, :count] = [offer.quality for offer in offers]
        self.edge_s[slot, :count] = [offer.edge_s for offer in offers]
        self.cloud_s[slot, :count] = [offer.cloud_s for offer in offers]
        self.continues[slot, :count] = [offer.continues_prefix for offer in offers]

    def pad(self, slots: int, offers: int) -> None:
        """So many slots and columns more, all of them empty."""
        width = ((0, slots), (0, offers))
        self.payload_bytes = np.pad(self.payload_bytes, width, constant_values=np.inf)
        self.quality = np.pad(self.quality, width)
        self.edge_s = np.pad(self.edge_s, width)
        self.cloud_s = np.pad(self.cloud_s, width)
        self.continues = np.pad(self.continues, width)

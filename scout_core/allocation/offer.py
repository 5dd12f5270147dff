"""What a request offers and who asks: the allocator's vocabulary.

This module owns the shapes that come from outside and their checks. It does not know the wire (the
cloud daemon translates ``scout.v1.Offer``) nor what becomes of a request (``requests``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Final, NewType

from scout_core.errors import RequestError, RetentionError, SettingsError
from scout_core.modes import Mode, TenantId

GroupId = NewType("GroupId", str)
"""An uplink that several agents share: a cell, a site, an egress."""

MAX_OFFERS: Final = 64
"""Offers per request: five modes at a dozen retentions leave room."""
MAX_QUALITY: Final = 1.5
"""Quality is relative to the full context. The paper reports up to 1.07; what claims more than this
is a mistake or a lie."""

_WHOLE_KV: Final = frozenset({Mode.KV_BF16, Mode.KV_INT8, Mode.KV_INT4})


class Priority(Enum):
    """How much a request counts beside others of its tenant; the value multiplies its quality."""

    BACKGROUND = 0.25
    NORMAL = 1.0
    URGENT = 4.0


@dataclass(frozen=True, slots=True)
class Offer:
    """One way in which an agent could serve its request.

    Attributes:
        mode: what would cross the uplink.
        retention: fraction of context positions kept, (0, 1].
        payload_bytes: all bytes of the payload, > 0.
        quality: expected quality relative to the full context, 0 to ``MAX_QUALITY``.
        edge_s: seconds after arrival until the edge has the payload ready, ≥ 0.
        cloud_s: seconds the cloud needs after the last byte until the first token, ≥ 0.

    Raises:
        RequestError, RetentionError: a figure is out of its range.
    """

    mode: Mode
    retention: float
    payload_bytes: int
    quality: float
    edge_s: float = 0.0
    cloud_s: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.retention <= 1:
            raise RetentionError(f"Retention must be in (0, 1], got {self.retention}.")
        if self.payload_bytes <= 0:
            raise RequestError(f"An offer needs payload bytes > 0, got {self.payload_bytes}.")
        if not 0 <= self.quality <= MAX_QUALITY:
            raise RequestError(f"Quality must be in 0..{MAX_QUALITY}, got {self.quality}.")
        for name, seconds in (("edge_s", self.edge_s), ("cloud_s", self.cloud_s)):
            if not (seconds >= 0 and math.isfinite(seconds)):
                raise RequestError(f"{name} must be finite and ≥ 0, got {seconds}.")

    @property
    def continues_prefix(self) -> bool:
        """Whether bytes of another such offer are worth keeping after a switch (DESIGN §3)."""
        return self.mode in _WHOLE_KV


@dataclass(frozen=True, slots=True)
class TenantPolicy:
    """What a tenant may expect.

    Attributes:
        tenant: whose.
        weight: multiplies the quality of all its requests, > 0.
        guaranteed_share: fraction of each group's capacity kept for its requests while it has any,
            0 to 1. The guarantees of all tenants of a group should not exceed 1.
    """

    tenant: TenantId
    weight: float = 1.0
    guaranteed_share: float = 0.0

    def __post_init__(self) -> None:
        if not (self.weight > 0 and math.isfinite(self.weight)):
            raise SettingsError(f"Weight of tenant {self.tenant} must be > 0, got {self.weight}.")
        if not 0 <= self.guaranteed_share <= 1:
            raise SettingsError(
                f"Guaranteed share of tenant {self.tenant} must be in 0..1, got "
                f"{self.guaranteed_share}."
            )

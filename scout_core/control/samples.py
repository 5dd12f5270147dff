"""One observation of the uplink, as every part of this room exchanges it.

This module owns the shape of an observation; it does not know where it was measured (acks, probes,
a replayed trace) nor what is inferred from it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TransferSample:
    """Bytes that crossed the uplink in a stretch of time.

    Attributes:
        payload_bytes: bytes delivered in the stretch, ≥ 0 (0: the link delivered nothing although
            bytes were waiting).
        duration_s: length of the stretch, > 0; propagation delay is not part of it.
        application_limited: the sender (or its credit) had nothing to send during part of the
            stretch, so the figure is only a lower bound of what the link could carry.
        at_s: end of the stretch on the observer's clock.
    """

    payload_bytes: int
    duration_s: float
    application_limited: bool
    at_s: float

    @property
    def bytes_per_s(self) -> float:
        return self.payload_bytes / self.duration_s

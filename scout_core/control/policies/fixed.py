"""Always the same mode: what today's systems do.

Owns no judgement: neither link nor deadline is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from scout_core.control.offers import FULL_RETENTION, Offer
from scout_core.control.policy import Decision, Situation, decision
from scout_core.errors import ModeUnavailableError
from scout_core.modes import Mode

FIXED_RETENTION: Final = 0.5
"""The source paper keeps 84 of 170 positions."""


@dataclass(frozen=True, slots=True)
class FixedPolicy:
    """One mode, one retention.

    Attributes:
        mode: the mode.
        retention: None takes ``FIXED_RETENTION`` for modes that select and 1.0 for the others.
    """

    mode: Mode
    retention: float | None = None

    @property
    def name(self) -> str:
        return f"fixed:{self.mode.value}"

    def choose(self, offers: Sequence[Offer], situation: Situation) -> Decision:
        """The offer of the mode whose retention is nearest to the wanted one.

        Among equals the one with the least payload and cloud time (sparse before evict).
        """
        mine = [offer for offer in offers if offer.mode is self.mode]
        if not mine:
            raise ModeUnavailableError(
                f"Mode {self.mode.value} is not feasible for this request; use mode auto.",
                mode=self.mode.value,
            )
        wanted = self.retention
        if wanted is None:
            wanted = FIXED_RETENTION if self.mode.selects else FULL_RETENTION
        chosen = min(
            mine,
            key=lambda offer: (abs(offer.retention - wanted), offer.cloud_s, offer.payload_bytes),
        )
        return decision(chosen, situation, f"Mode {self.mode.value} was fixed.")

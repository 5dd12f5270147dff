"""Whether agents keep to their grants: what each may have sent against what arrived.

This module owns the accounting of misbehaviour. It does not know how an offender is stopped: the
scheduler withholds grants, the cloud's receiver refuses bytes beyond credit. An agent's allowance
grows by its granted rate; what arrived beyond it is a debt, paid off by the grants it goes without.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from scout_core.errors import SettingsError


class Offence(Enum):
    """What an agent did wrong; the value is the name in logs and metrics."""

    BEYOND_GRANT = "beyond_grant"
    """Sent more than all its grants allowed."""
    BEYOND_OFFER = "beyond_offer"
    """Sent more payload than the offer it was granted for declared."""


@dataclass(frozen=True, slots=True)
class ConductPolicy:
    """Tolerances.

    Attributes:
        burst_bytes: sent in advance without offence: one credit window, and bytes that were under
            way when a grant shrank.
        tolerance: fraction by which the allowance may be exceeded: clocks and framing differ.
        lag_s: bytes arrive up to so long after the grant that allowed them: a round trip and the
            time between two acknowledgements.
        containment_s: an offender goes without grants at least so long.
    """

    burst_bytes: float = 262_144.0
    tolerance: float = 0.05
    lag_s: float = 0.5
    containment_s: float = 2.0

    def __post_init__(self) -> None:
        if min(self.burst_bytes, self.tolerance) < 0 or min(self.lag_s, self.containment_s) <= 0:
            raise SettingsError("Conduct needs burst and tolerance ≥ 0, lag and containment > 0 s.")


class ConductAccount:
    """The account of one agent.

    Args:
        policy: tolerances.
        now: when the agent attached.
    """

    def __init__(self, policy: ConductPolicy, now: float) -> None:
        self._policy = policy
        self._rate_bytes_per_s = 0.0
        self._since_s = now
        self._allowed_bytes = policy.burst_bytes
        self._contained_until_s = now
        self._peak_bytes_per_s = 0.0
        self._peak_until_s = now
        self.offences = 0
        self.excess_bytes = 0.0

    def is_contained(self, now: float) -> bool:
        """Whether the agent gets no grants for now."""
        return now < self._contained_until_s

    @property
    def contained_until_s(self) -> float:
        return self._contained_until_s

    def granted(self, rate_bytes_per_s: float, now: float) -> None:
        """From ``now`` on the agent may send so fast (all its sessions together)."""
        self._accrue(now)
        self._remember_peak(now)
        self._rate_bytes_per_s = rate_bytes_per_s

    def received(self, size_bytes: float, now: float) -> float:
        """Books bytes that arrived and returns the excess: 0 if they were allowed."""
        self._accrue(now)
        self._allowed_bytes -= size_bytes / (1 + self._policy.tolerance)
        if self._allowed_bytes >= 0:
            return 0.0
        excess, self._allowed_bytes = -self._allowed_bytes, 0.0
        self.excess_bytes += excess
        return excess

    def contain(self, excess_bytes: float, fair_rate_bytes_per_s: float, now: float) -> None:
        """Withholds grants until the excess is paid off at the rate the agent would have had."""
        self.offences += 1
        debt_s = excess_bytes / fair_rate_bytes_per_s if fair_rate_bytes_per_s > 0 else 0.0
        until_s = now + max(self._policy.containment_s, debt_s)
        self._contained_until_s = max(self._contained_until_s, until_s)

    def _accrue(self, now: float) -> None:
        span_s = max(now - self._since_s, 0.0)
        self._since_s = max(now, self._since_s)
        peak = max(
            self._rate_bytes_per_s, self._peak_bytes_per_s if now <= self._peak_until_s else 0.0
        )
        # Bytes may arrive a lag after they were allowed, but unused allowance does not pile up
        # beyond that, or an idle agent could flood later.
        ceiling = self._policy.burst_bytes + peak * self._policy.lag_s
        earned = self._allowed_bytes + self._rate_bytes_per_s * span_s
        self._allowed_bytes = min(earned, ceiling)

    def _remember_peak(self, now: float) -> None:
        """The rate that ends now still explains bytes that arrive within a lag."""
        if self._rate_bytes_per_s >= self._peak_bytes_per_s or now > self._peak_until_s:
            self._peak_bytes_per_s = self._rate_bytes_per_s
            self._peak_until_s = now + self._policy.lag_s

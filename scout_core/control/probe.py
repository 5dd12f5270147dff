"""How many bytes may be spent on finding out what an idle link carries.

This module owns the budget and the moment; the control channel sends the bytes and reports the
observation. It does not know a clock, gRPC or the estimator.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

BUDGET_PERIOD_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """Limits of active probing.

    Attributes:
        bytes_per_minute: budget in any 60 s; 0 switches probing off.
        metered: the link costs money per byte: never probe.
        idle_after_s: probe only if no observation is younger than this.
        target_s: a probe should occupy the link for about this long…
        smallest_bytes, largest_bytes: …within these sizes.
    """

    bytes_per_minute: int = 4 * 1024 * 1024
    metered: bool = False
    idle_after_s: float = 10.0
    target_s: float = 0.1
    smallest_bytes: int = 16 * 1024
    largest_bytes: int = 1024 * 1024


class ProbeBudget:
    """Decides when to probe and with how many bytes."""

    def __init__(self, settings: ProbeSettings | None = None) -> None:
        self._settings = settings or ProbeSettings()
        self._spent: deque[tuple[float, int]] = deque()
        self._active_at_s: float | None = None

    def on_activity(self, now: float) -> None:
        """Payload was moved or a probe was answered: the link is not idle."""
        self._active_at_s = now

    def spent_bytes(self, now: float) -> int:
        """Probe bytes of the last minute."""
        while self._spent and self._spent[0][0] <= now - BUDGET_PERIOD_S:
            self._spent.popleft()
        return sum(size for _, size in self._spent)

    def due(self, now: float, expected_bytes_per_s: float) -> int:
        """Bytes of the probe to send now, 0 for none; the bytes count as spent at once.

        Args:
            now: seconds on the caller's monotonic clock.
            expected_bytes_per_s: what the link is believed to carry.
        """
        settings = self._settings
        if settings.metered or settings.bytes_per_minute == 0:
            return 0
        if self._active_at_s is not None and now - self._active_at_s < settings.idle_after_s:
            return 0
        wanted = int(expected_bytes_per_s * settings.target_s)
        size = max(settings.smallest_bytes, min(wanted, settings.largest_bytes))
        if self.spent_bytes(now) + size > settings.bytes_per_minute:
            return 0
        self._spent.append((now, size))
        self._active_at_s = now
        return size

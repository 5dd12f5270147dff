"""Delay variation as a function of time alone: seeded, bounded, and never reordering.

This module owns the shape of the jitter. It is a hash of the time slot and not a stream of draws,
so that real time, which cuts a transfer into other pieces at each run, sees exactly the jitter that
virtual time sees. It knows no traffic.
"""

from __future__ import annotations

from dataclasses import dataclass

SLOT_S = 0.010
"""The draw changes at this interval, the scale of radio schedulers (an LTE frame is 10 ms)."""
_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


@dataclass(frozen=True, slots=True)
class Jitter:
    """Each slot has a uniform draw in [0, ``limit_s``); what leaves in it is late by the draw.

    Order is kept by the envelope: nothing lands before what left in an earlier slot, so after a
    large draw the lateness falls by one second a second until the present draw is reached.
    """

    limit_s: float
    seed: int

    def late_s(self, at_s: float) -> float:
        """Lateness in [0, limit_s) of what leaves at ``at_s`` ≥ 0; ``at_s`` + it never falls."""
        if self.limit_s <= 0:
            return 0.0
        slot = int(at_s / SLOT_S)
        late_s = self._draw_s(slot)
        reach = int(self.limit_s / SLOT_S) + 1
        for earlier in range(max(slot - reach, 0), slot):
            late_s = max(late_s, (earlier + 1) * SLOT_S + self._draw_s(earlier) - at_s)
        return late_s

    def _draw_s(self, slot: int) -> float:
        """Finaliser of SplitMix64 (Steele, Lea and Flood 2014) over seed and slot."""
        value = (self.seed * _GOLDEN + slot + 1) * _GOLDEN & _MASK
        value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
        value = (value ^ (value >> 27)) * 0x94D049BB133111EB & _MASK
        return self.limit_s * ((value ^ (value >> 31)) >> 11) / (1 << 53)

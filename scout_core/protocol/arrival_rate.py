"""Rate at which bytes arrive, as the highest of the last few samples.

One sample runs from an arrival to the first arrival at least ``period_s`` later, and counts the
bytes after the former: with chunks of any size at a steady rate it is exact, where counting per
fixed interval would be off by a chunk. The maximum forgets after ``SAMPLES`` samples (the
bottleneck filter of BBR, draft-ietf-ccwg-bbr §5.5.5, counts round trips in the same way). Before
the first sample is complete, shorter *early* ones may stand in for it.

This module owns a rule of flow control, not a forecast: ``control`` has the estimator.
"""

from __future__ import annotations

from collections import deque

SAMPLES = 10


class ArrivalRate:
    """Windowed maximum of arrival-rate samples.

    Args:
        period_s: shortest span of a sample, normally one round trip.
        early_s: shortest span of the early samples; None: there are none.
    """

    def __init__(self, period_s: float, early_s: float | None = None) -> None:
        self._period_s = period_s
        self._early_s = period_s if early_s is None else early_s
        self._samples: deque[float] = deque(maxlen=SAMPLES)
        self._anchor: tuple[int, float] | None = None
        self._early_anchor = (0, 0.0)
        self._bytes_per_s = 0.0

    @property
    def bytes_per_s(self) -> float:
        """The highest recent sample; 0.0 until there is one."""
        return self._bytes_per_s

    def observe(self, total_bytes: int, now: float) -> bool:
        """Notes that ``total_bytes`` have arrived so far; returns whether a sample was made."""
        if self._anchor is None:
            self._anchor = self._early_anchor = (total_bytes, now)
            return False
        anchor_bytes, anchor_at = self._anchor
        elapsed_s = now - anchor_at
        if elapsed_s < self._period_s or elapsed_s <= 0.0:
            return not self._samples and self._observe_early(total_bytes, now)
        self._samples.append((total_bytes - anchor_bytes) / elapsed_s)
        self._bytes_per_s = max(self._samples)
        self._anchor = (total_bytes, now)
        return True

    def restart(self) -> None:
        """Drops the sample under way (the stream stood still); keeps the finished ones."""
        self._anchor = None

    def _observe_early(self, total_bytes: int, now: float) -> bool:
        anchor_bytes, anchor_at = self._early_anchor
        elapsed_s = now - anchor_at
        if elapsed_s < self._early_s or elapsed_s <= 0.0:
            return False
        self._bytes_per_s = max(self._bytes_per_s, (total_bytes - anchor_bytes) / elapsed_s)
        self._early_anchor = (total_bytes, now)
        return True

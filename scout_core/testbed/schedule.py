"""A link's rate over time, as a piecewise-constant function with an exact integral.

This module owns the arithmetic of rate and time: how many bits pass between two instants and when
a number of bytes has passed. It does not know where a schedule comes from (``traces``,
``generators``), nor queues, delay or sockets (``bottleneck``, ``proxy``). Time is seconds since the
schedule's start; there is no clock here.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

from scout_core.errors import SettingsError

BITS_PER_MEGABIT = 1_000_000.0
BITS_PER_BYTE = 8


@dataclass(frozen=True, slots=True)
class RateSchedule:
    """Rate as a function of time: ``rates_mbps[i]`` holds from ``starts_s[i]`` to the next start.

    Args:
        starts_s: strictly increasing, the first is 0.
        rates_mbps: megabits (10^6 bits) a second, one per start, finite and not negative.
        period_s: with a number, the schedule repeats after so many seconds (more than the last
            start); with None the last rate holds for ever.

    Raises:
        SettingsError: the numbers above are not so.
    """

    starts_s: tuple[float, ...]
    rates_mbps: tuple[float, ...]
    period_s: float | None = None
    _bits_at_start: tuple[float, ...] = field(init=False, repr=False, compare=False)
    _bits_per_period: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check(self.starts_s, self.rates_mbps, self.period_s)
        bits = [0.0]
        for index in range(1, len(self.starts_s)):
            span_s = self.starts_s[index] - self.starts_s[index - 1]
            bits.append(bits[-1] + span_s * self.rates_mbps[index - 1] * BITS_PER_MEGABIT)
        last_span_s = 0.0 if self.period_s is None else self.period_s - self.starts_s[-1]
        per_period = bits[-1] + last_span_s * self.rates_mbps[-1] * BITS_PER_MEGABIT
        object.__setattr__(self, "_bits_at_start", tuple(bits))
        object.__setattr__(self, "_bits_per_period", per_period)

    @classmethod
    def constant(cls, mbps: float) -> RateSchedule:
        """The same rate for ever."""
        return cls((0.0,), (float(mbps),))

    @classmethod
    def from_spans(cls, spans: Iterable[tuple[float, float]], *, loop: bool) -> RateSchedule:
        """A schedule from ``(duration_s, mbps)`` pairs; without ``loop`` the last rate stays."""
        starts: list[float] = []
        rates: list[float] = []
        clock_s = 0.0
        for duration_s, mbps in spans:
            starts.append(clock_s)
            rates.append(float(mbps))
            clock_s += duration_s
        return cls(tuple(starts), tuple(rates), clock_s if loop else None)

    def rate_mbps(self, at_s: float) -> float:
        """Megabits a second at ``at_s``; a boundary belongs to the span that begins there."""
        within_s = at_s if self.period_s is None else at_s % self.period_s
        return self.rates_mbps[max(bisect_right(self.starts_s, within_s) - 1, 0)]

    def bits_between(self, from_s: float, to_s: float) -> float:
        """The integral of the rate, in bits, from ``from_s`` to ``to_s`` (0 if not later)."""
        if to_s <= from_s:
            return 0.0
        return self._bits_until(to_s) - self._bits_until(from_s)

    def finish_time(self, start_s: float, size_bytes: float) -> float:
        """When ``size_bytes`` have passed a link that serves nothing else from ``start_s`` on.

        Infinite if the schedule never carries so much. Zero bytes finish at once, even in an
        outage.
        """
        if size_bytes <= 0:
            return start_s
        target_bits = self._bits_until(start_s) + size_bytes * BITS_PER_BYTE
        return max(start_s, self._time_of(target_bits))

    def mean_mbps(self, from_s: float, to_s: float) -> float:
        """The average rate over an interval of positive length."""
        if to_s <= from_s:
            raise SettingsError(f"A mean rate needs an interval, got {from_s} s to {to_s} s.")
        return self.bits_between(from_s, to_s) / (to_s - from_s) / BITS_PER_MEGABIT

    def scaled(self, factor: float) -> RateSchedule:
        """The same shape at ``factor`` times the rate."""
        rates = tuple(rate * factor for rate in self.rates_mbps)
        return RateSchedule(self.starts_s, rates, self.period_s)

    def _bits_until(self, at_s: float) -> float:
        if at_s <= 0:
            return 0.0
        periods, within_s = (0.0, at_s) if self.period_s is None else divmod(at_s, self.period_s)
        index = bisect_right(self.starts_s, within_s) - 1
        into_s = within_s - self.starts_s[index]
        partial = self._bits_at_start[index] + into_s * self.rates_mbps[index] * BITS_PER_MEGABIT
        return periods * self._bits_per_period + partial

    def _time_of(self, target_bits: float) -> float:
        """The earliest time at which ``target_bits`` (positive) have passed since 0."""
        base_s, rest_bits = 0.0, target_bits
        if self.period_s is not None and self._bits_per_period > 0:
            periods = max(math.ceil(target_bits / self._bits_per_period) - 1, 0)
            base_s = periods * self.period_s
            rest_bits = target_bits - periods * self._bits_per_period
        index = max(bisect_left(self._bits_at_start, rest_bits) - 1, 0)
        rate_bits_per_s = self.rates_mbps[index] * BITS_PER_MEGABIT
        if rate_bits_per_s <= 0:
            return math.inf
        return (
            base_s
            + self.starts_s[index]
            + (rest_bits - self._bits_at_start[index]) / (rate_bits_per_s)
        )


def _check(
    starts_s: tuple[float, ...], rates_mbps: tuple[float, ...], period_s: float | None
) -> None:
    if not starts_s or len(starts_s) != len(rates_mbps):
        raise SettingsError(
            "A rate schedule needs one rate per start and at least one, got "
            f"{len(starts_s)} starts and {len(rates_mbps)} rates."
        )
    if starts_s[0] != 0.0:
        raise SettingsError(f"A rate schedule starts at 0 s, got {starts_s[0]}.")
    for index, rate in enumerate(rates_mbps):
        if not math.isfinite(rate) or rate < 0:
            raise SettingsError(f"Rate {index} must be a finite number ≥ 0 Mbit/s, got {rate}.")
    times = (*starts_s, *(() if period_s is None else (period_s,)))
    for earlier, later in pairwise(times):
        if not math.isfinite(later) or later <= earlier:
            raise SettingsError(
                f"Times of a rate schedule must increase, got {later} s after {earlier} s."
            )

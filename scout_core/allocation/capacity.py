"""What one uplink group can carry: configured, or learnt from what crosses it.

This module owns the estimate. It does not know how goodput and delay are measured. Learning follows
the idea of delay-based congestion control (draft-ietf-rmcat-gcc-02, section 5): while the group is
saturated the sum of goodputs *is* the capacity, so the estimate follows it with a small probe on
top; a growing queueing delay says that the probe went too far, and the estimate backs off below
the goodput until the queue has drained.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from scout_core.errors import SettingsError

LARGEST_JUMP: Final = 1.5
"""Of the logarithm between two figures: a factor of 4.5."""
DELIVERED: Final = 0.7
"""A saturated link that delivers less than this part of the estimate is at its limit, whatever the
queue says: where it is short the delay stays small. (Grants of 20 to 50 ms, seen for 200 ms, make
up to a quarter of noise.)"""
VOLATILITY_MEMORY_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class CapacityPolicy:
    """How the capacity of a group is known.

    Attributes:
        initial_bytes_per_s: the configured capacity, or where learning starts; > 0.
        learns: False: the configured figure holds for ever.
        minimum_bytes_per_s, maximum_bytes_per_s: the estimate stays between them.
        delay_limit_s: a queueing delay up to this much is jitter, not congestion (GCC: 12.5 ms and
            up; a cellular uplink jitters by about 25 ms).
        backoff: part of the goodput to fall to when the queue grows (GCC: 0.85; we re-solve and
            re-grant within 100 ms, so less is enough).
        probe: part by which to try beyond the goodput, soon after a queue.
        first_probe: the same until the queue has grown for the first time, and the most ever.
        calm_s: without a queue the probe doubles in so long: a link that has become faster is
            found in seconds, while on a steady one every probe stays small.
        response_s: time constant with which the estimate follows the goodput.
    """

    initial_bytes_per_s: float
    learns: bool = False
    minimum_bytes_per_s: float = 1_000.0
    maximum_bytes_per_s: float = math.inf
    delay_limit_s: float = 0.025
    backoff: float = 0.9
    probe: float = 0.05
    first_probe: float = 1.0
    calm_s: float = 1.0
    response_s: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.minimum_bytes_per_s <= self.maximum_bytes_per_s:
            raise SettingsError("Capacity needs 0 < minimum_bytes_per_s ≤ maximum_bytes_per_s.")
        low, first, high = (
            self.minimum_bytes_per_s,
            self.initial_bytes_per_s,
            self.maximum_bytes_per_s,
        )
        if not (low <= first <= high and math.isfinite(first)):
            raise SettingsError(
                f"The first capacity must be between {low} and {high} bytes/s, got {first}."
            )
        if not 0 < self.backoff < 1 or self.probe <= 0 or self.first_probe <= 0:
            raise SettingsError("Capacity learning needs backoff in (0, 1) and probes > 0.")
        if min(self.delay_limit_s, self.response_s, self.calm_s) <= 0:
            raise SettingsError("delay_limit_s, response_s and calm_s must be > 0.")


@dataclass(frozen=True, slots=True)
class CapacityObservation:
    """What one stretch of time showed.

    Attributes:
        goodput_bytes_per_s: sum over the group's agents, ≥ 0.
        queueing_delay_s: how much longer than the shortest a round trip now takes, ≥ 0.
        saturated: whether the agents had more to send than was granted.
        at_s: end of the stretch.
    """

    goodput_bytes_per_s: float
    queueing_delay_s: float
    saturated: bool
    at_s: float


class CapacityEstimate:
    """The running estimate of one group.

    Args:
        policy: bounds and reaction.
        now: when the group came to be.
    """

    def __init__(self, policy: CapacityPolicy, now: float) -> None:
        self._policy = policy
        self._estimate = policy.initial_bytes_per_s
        self._seen_s = now
        self._delay_s = 0.0
        self._probe = policy.first_probe
        self._set_s = now
        self._variance_per_s = 0.0

    @property
    def bytes_per_s(self) -> float:
        return self._estimate

    @property
    def volatility(self) -> float:
        """Standard deviation of the logarithm of the capacity over one second, lately."""
        return math.sqrt(self._variance_per_s)

    def configure(self, bytes_per_s: float, now: float) -> None:
        """An operator, or a lower layer that knows, sets the figure."""
        self._set(bytes_per_s, now)

    def observe(self, sample: CapacityObservation) -> None:
        """Takes one observation in; without learning nothing changes."""
        # After a pause one observation counts for no longer than it took.
        span_s = min(max(sample.at_s - self._seen_s, 0.0), self._policy.response_s)
        grew = sample.queueing_delay_s >= self._delay_s
        self._seen_s, self._delay_s = sample.at_s, sample.queueing_delay_s
        if not self._policy.learns:
            return
        if sample.queueing_delay_s > self._policy.delay_limit_s:
            self._probe = self._policy.probe
            # A queue that already drains needs no second step down.
            if grew:
                lowered = self._policy.backoff * sample.goodput_bytes_per_s
                self._set(min(self._estimate, lowered), sample.at_s)
        elif sample.saturated:
            if sample.goodput_bytes_per_s < DELIVERED * self._estimate:
                self._probe = min(self._probe, self._policy.probe)
            target = sample.goodput_bytes_per_s * (1 + self._probe)
            grown = self._probe * 2 ** (span_s / self._policy.calm_s)
            self._probe = min(grown, self._policy.first_probe)
            part = 1 - math.exp(-span_s / self._policy.response_s)
            self._set(self._estimate + part * (target - self._estimate), sample.at_s)
        elif sample.goodput_bytes_per_s > self._estimate:
            self._set(sample.goodput_bytes_per_s, sample.at_s)

    def _set(self, bytes_per_s: float, now: float) -> None:
        low, high = self._policy.minimum_bytes_per_s, self._policy.maximum_bytes_per_s
        bounded = min(max(bytes_per_s, low), high)
        span_s = now - self._set_s
        if span_s > 0:
            # An outage is a jump without end in the logarithm; a few such would rule for ever.
            jump = min(abs(math.log(bounded / self._estimate)), LARGEST_JUMP)
            memory = math.exp(-span_s / VOLATILITY_MEMORY_S)
            added = (1 - memory) * jump**2 / span_s
            self._variance_per_s = memory * self._variance_per_s + added
            self._set_s = now
        self._estimate = bounded

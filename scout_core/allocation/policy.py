"""The scheduler's settings, as one frozen object.

This module owns the numbers and their checks; it does not know where they come from.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from scout_core.allocation.conduct import ConductPolicy
from scout_core.allocation.sharing import SharingPolicy
from scout_core.errors import SettingsError


@dataclass(frozen=True, slots=True)
class SchedulerPolicy:
    """How the uplink scheduler behaves.

    Attributes:
        period_s: re-solve at least so often while requests are live.
        coalesce_s: events so close together share one solve; 0: solve at each.
        lease_s: a grant ends so long after its agent was last heard. Heartbeats must come
            at least twice as often.
        hysteresis: a request changes its offer only for so much more quality.
        settled_bytes: with no more than this left, a request keeps its offer while that can be in
            time: what is left is coded already.
        planning_margin: part of the capacity that choices leave unused, against small dips and what
            processes lose between one another's bytes; rates use all of it, and so does who would
            otherwise lose much of its value (``margin``).
        caution: choices count on a capacity so many standard deviations of its change within a
            second below its figure now; a steady capacity is counted on in full.
        late_window: a late request counts as in time again when it would be with this part of its
            window, so that it does not go back and forth.
        grace_s: a granted transfer is not given up for lateness below this: rounding, or less than
            a message takes. Larger values let others plan with the difference.
        grant_step: a larger rate is told only if it is more than by this part larger.
        forget_after_s: a request that has lost its deadline is removed after so long without
            progress.
        orders_in_time: choose with rates that vary before the deadlines (``horizon``); False:
            constant rates, Eq. 5 to the letter.
        sharing, conduct: rates, and tolerance of misbehaviour.
    """

    period_s: float = 0.1
    coalesce_s: float = 0.005
    lease_s: float = 1.0
    hysteresis: float = 0.005
    settled_bytes: float = 16_384.0
    planning_margin: float = 0.02
    caution: float = 1.0
    late_window: float = 0.9
    grace_s: float = 0.0002
    grant_step: float = 0.01
    forget_after_s: float = 30.0
    orders_in_time: bool = True
    sharing: SharingPolicy = field(default_factory=SharingPolicy)
    conduct: ConductPolicy = field(default_factory=ConductPolicy)

    def __post_init__(self) -> None:
        if self.period_s <= 0 or self.coalesce_s < 0 or self.forget_after_s <= 0:
            raise SettingsError("period_s and forget_after_s must be > 0 and coalesce_s ≥ 0.")
        if self.lease_s <= self.period_s:
            raise SettingsError(
                f"A lease of {self.lease_s} s must outlast the period of {self.period_s} s, or it "
                "ends before it can be renewed."
            )
        least = min(
            self.hysteresis, self.settled_bytes, self.grant_step, self.caution, self.grace_s
        )
        if least < 0:
            raise SettingsError(
                "hysteresis, settled_bytes, grant_step, caution and grace_s must be ≥ 0."
            )
        if not 0 <= self.planning_margin < 1 or not 0 < self.late_window <= 1:
            raise SettingsError("planning_margin must be in [0, 1) and late_window in (0, 1].")

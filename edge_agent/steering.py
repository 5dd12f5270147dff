"""Whether the rest of a KV transfer should go on, change its codec, or be left to the cloud.

Asked before each block, because a block is the smallest thing that can be coded in another way.
Blocks are position-major, so whatever was sent stays useful. The rule is
``scout_core.control.downgrade``; this module gathers what the rule needs. It sends nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from edge_agent.attachment import CloudView
from edge_agent.guidance import Guidance
from edge_agent.host import EdgeHost
from edge_agent.planning import CodecSizes, Plan, Question
from scout_core.control.cost import Stage
from scout_core.control.downgrade import (
    CAUSE_DEADLINE,
    FinishWithTokens,
    Keep,
    Progress,
    Remainder,
    SwitchTo,
    Verdict,
    decide,
)
from scout_core.control.offers import ENCODE_STAGES, CloudContext
from scout_core.modes import Execution, Mode
from scout_core.protocol.opening import CAUSE_ALLOCATION

STEERED = (Mode.KV_BF16, Mode.KV_INT8, Mode.KV_INT4)
"""Modes whose remaining blocks can be coded in any of the others."""


@dataclass(slots=True)
class Steering:
    """Watches one transfer.

    Args:
        backlog_bytes: payload handed over and not yet acknowledged, now.
        round_trip_s: smallest round trip to the cloud.
        guidance: on a scheduled uplink the cloud's scheduler decides instead: what this end sees of
            the link is the share that it was given.
    """

    host: EdgeHost
    view: CloudView
    question: Question
    plan: Plan
    backlog_bytes: Callable[[], int]
    round_trip_s: float
    guidance: Guidance | None = None
    _switched_s: float = field(default_factory=time.monotonic)

    @property
    def enabled(self) -> bool:
        """A mode that the caller forced is kept, whatever the link does."""
        return self.question.parameters.mode is None and self.plan.offer.mode in STEERED

    @property
    def finish_cause(self) -> str:
        """Why the rest is left to the cloud, if it is."""
        return CAUSE_DEADLINE if self.guidance is None else CAUSE_ALLOCATION

    def consider(self, mode: Mode, position: int, now: float) -> Verdict:
        """What to do with the positions from ``position`` on, coded as ``mode`` so far."""
        if not self.enabled:
            return Keep(1.0)
        remaining = self.plan.facts.prefix_tokens - position
        if self.guidance is not None:
            return self._as_asked(mode, self.guidance.mode, remaining)
        progress = Progress(
            current=self._remainder(mode, remaining),
            alternatives=tuple(
                self._remainder(other, remaining)
                for other in (*STEERED, Mode.SCOUT)
                if other is not mode
            ),
            backlog_bytes=self.backlog_bytes(),
            time_left_s=self.question.deadline_s - (now - self.question.arrived_s),
            since_switch_s=now - self._switched_s,
            target_probability=self.host.settings.target_probability,
        )
        verdict = decide(progress, self.host.estimator.forecast(now, self.round_trip_s))
        if not isinstance(verdict, Keep):
            self._switched_s = now
        return verdict

    def _as_asked(self, mode: Mode, wanted: Mode, remaining: int) -> Verdict:
        if wanted is mode:
            return Keep(1.0)
        if wanted in STEERED:
            return SwitchTo(self._remainder(wanted, remaining), 1.0, CAUSE_ALLOCATION)
        if wanted is Mode.SCOUT:
            return FinishWithTokens(self._remainder(wanted, remaining), 1.0)
        return Keep(1.0)  # a selection cannot go on where whole KV has begun

    def _remainder(self, mode: Mode, remaining: int) -> Remainder:
        """The rest of the payload in one mode; SCOUT means as tokens, prefilled by the cloud."""
        costs = self.view.costs
        first_token_s = costs.predict(Stage.CLOUD_FIRST_TOKEN, self.plan.facts.tail_tokens)
        context_tokens = self.plan.facts.context_tokens
        sizes = CodecSizes(self.view.model.geometry, self.view.model.vocabulary)
        quality = self.host.quality.quality(mode, Execution.EVICT, 1.0, context_tokens)
        if mode is Mode.SCOUT:
            absent = self.plan.facts.cloud_context is CloudContext.ABSENT
            return Remainder(
                mode=mode,
                retention=1.0,
                payload_bytes=sizes.token_bytes(context_tokens) if absent else 0,
                quality=quality,
                encode_s=0.0,
                cloud_s=costs.predict(Stage.CLOUD_PREFILL, remaining) + first_token_s,
            )
        return Remainder(
            mode=mode,
            retention=1.0,
            payload_bytes=sizes.kv_bytes(mode, remaining),
            quality=quality,
            encode_s=self.host.costs.predict(ENCODE_STAGES[mode], remaining),
            cloud_s=costs.predict(Stage.CLOUD_INJECT, remaining) + first_token_s,
        )

"""Whether the rest of a KV transfer should go on, change its codec, or be left to the cloud.

Asked before each block, because a block is the smallest thing that can be coded in another way.
Blocks are position-major, so whatever was sent stays useful. The rule is
``scout_core.control.downgrade``; this module gathers what the rule needs. It sends nothing.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from edge_agent.cloud_view import CloudView
from edge_agent.grading import Grading
from edge_agent.guidance import Guidance
from edge_agent.host import EdgeHost
from edge_agent.planning import CodecSizes, Plan, Question
from edge_agent.refining import RUNGS, SentKv
from scout_core.control.coding import CodedKv, CodingSources, KvCoding, coded_kv
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
    refine,
)
from scout_core.control.offers import CloudContext
from scout_core.modes import Execution, Mode
from scout_core.protocol.opening import CAUSE_ALLOCATION

STEERED = (Mode.KV_BF16, Mode.KV_INT8, Mode.KV_INT4)
"""Modes whose remaining blocks can be coded in any of the others."""


async def at_once() -> None:
    """Nobody waits for a turn."""


@dataclass(slots=True)
class Steering:
    """Watches one transfer.

    Args:
        backlog_bytes: payload handed over and not yet acknowledged, now.
        round_trip_s: smallest round trip to the cloud.
        guidance: on a scheduled uplink the cloud's scheduler decides instead: what this end sees of
            the link is the share that it was given.
        turn: on a scheduled uplink waits until the session has credit for more.
        grading: how finely each position is worth sending, and when that is known.
    """

    host: EdgeHost
    view: CloudView
    question: Question
    plan: Plan
    backlog_bytes: Callable[[], int]
    round_trip_s: float
    guidance: Guidance | None = None
    turn: Callable[[], Awaitable[None]] = at_once
    grading: Grading = field(init=False)
    _switched_s: float = field(default_factory=time.monotonic)
    _link_bytes_per_s: float = 0.0
    """As last forecast; 0: not yet."""

    def __post_init__(self) -> None:
        self.grading = Grading(self.host, self.question)

    @property
    def enabled(self) -> bool:
        """A mode that the caller forced is kept, whatever the link does."""
        return self.question.parameters.mode is None and self.plan.offer.mode in STEERED

    @property
    def finish_cause(self) -> str:
        """Why the rest is left to the cloud, if it is."""
        return CAUSE_DEADLINE if self.guidance is None else CAUSE_ALLOCATION

    def coding(self, mode: Mode, position: int) -> KvCoding:
        """How the block from ``position`` on is coded within its KV mode.

        On a scheduled uplink as it was offered: that is what its share was made for.
        """
        if self.guidance is not None:
            offered = [offer.coding for offer in self.plan.offers if offer.mode is mode]
            return offered[0] if offered else KvCoding.PLAIN
        return self._coded(mode, self.plan.facts.prefix_tokens - position).coding

    def consider(self, mode: Mode, position: int, now: float) -> Verdict:
        """What to do with the positions from ``position`` on, coded as ``mode`` so far."""
        forecast = self.host.estimator.forecast(now, self.round_trip_s)
        self._link_bytes_per_s = forecast.median_bytes_per_s
        if not self.enabled:
            return Keep(1.0)
        remaining = self.plan.facts.prefix_tokens - position
        if self.guidance is not None:
            return self._as_asked(mode, self.guidance.mode, remaining)
        others = (other for other in (*STEERED, Mode.SCOUT) if other is not mode)
        alternatives = tuple(self._remainder(other, remaining) for other in others)
        progress = self._progress(self._remainder(mode, remaining), alternatives, now)
        verdict = decide(progress, forecast)
        if not isinstance(verdict, Keep):
            self._switched_s = now
        return verdict

    def refinement(self, sent: SentKv, now: float) -> Mode | None:
        """What to refine the payload to, now that all of it is made; None: let it be.

        Asked again before each block. On a scheduled uplink never: the time that is left belongs
        to the others.
        """
        lowest = sent.lowest
        if not self.enabled or self.guidance is not None or lowest is None:
            return None
        forecast = self.host.estimator.forecast(now, self.round_trip_s)
        finer = tuple(self._refined(sent, mode) for mode in RUNGS if any(sent.below(mode)))
        chosen = refine(self._progress(self._refined(sent, lowest), finer, now), forecast)
        return chosen.mode if chosen else None

    def _progress(
        self, current: Remainder, alternatives: tuple[Remainder, ...], now: float
    ) -> Progress:
        """What there is to choose from, at ``now``."""
        return Progress(
            current=current,
            alternatives=alternatives,
            backlog_bytes=self.backlog_bytes(),
            time_left_s=self.question.time_left_s(now),
            since_switch_s=now - self._switched_s,
            target_probability=self.host.settings.target_probability,
        )

    def _refined(self, sent: SentKv, mode: Mode) -> Remainder:
        """What is missing until all that was sent has a mode."""
        facts, costs = self.plan.facts, self.view.costs
        positions = sum(block.count for block in sent.below(mode))
        encode_s = self.host.costs.predict(Stage.EDGE_REFINE, positions) if positions else 0.0
        refine_s = costs.predict(Stage.CLOUD_REFINE, positions) if positions else 0.0
        return Remainder(
            mode=mode,
            retention=1.0,
            payload_bytes=sent.bytes_to(mode),
            quality=self.host.quality_with(self.view.model).quality(
                mode, Execution.EVICT, 1.0, facts.context_tokens
            ),
            encode_s=encode_s,
            cloud_s=refine_s + costs.predict(Stage.CLOUD_FIRST_TOKEN, facts.tail_tokens),
        )

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
        quality = self.host.quality_with(self.view.model).quality(
            mode, Execution.EVICT, 1.0, context_tokens
        )
        if mode is Mode.SCOUT:
            absent = self.plan.facts.cloud_context is CloudContext.ABSENT
            return Remainder(
                mode=mode,
                retention=1.0,
                payload_bytes=self._sizes.token_bytes(context_tokens) if absent else 0,
                quality=quality,
                encode_s=0.0,
                cloud_s=costs.predict(Stage.CLOUD_PREFILL, remaining) + first_token_s,
            )
        coded = self._coded(mode, remaining)
        return Remainder(
            mode=mode,
            retention=1.0,
            payload_bytes=coded.payload_bytes,
            quality=quality,
            encode_s=coded.scoring_s + coded.encode_s,
            cloud_s=coded.inject_s + first_token_s,
        )

    @property
    def _sizes(self) -> CodecSizes:
        model = self.view.model
        return CodecSizes(model.geometry, model.vocabulary, self.host.shared_transform(model))

    def _coded(self, mode: Mode, positions: int) -> CodedKv:
        """The rest in a KV mode, at the link's rate as it is forecast now."""
        sizes = self._sizes
        if self._link_bytes_per_s == 0.0:
            forecast = self.host.estimator.forecast(time.monotonic(), self.round_trip_s)
            self._link_bytes_per_s = forecast.median_bytes_per_s
        rate = self._link_bytes_per_s
        sources = CodingSources(
            sizes,
            self.host.costs,
            self.view.costs,
            sizes.transform,
            rate,
            self.grading.wait_s,
        )
        return coded_kv(mode, positions, sources)

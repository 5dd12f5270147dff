"""What the cloud's scheduler asks of one session on a scheduled uplink, and the plan that follows.

Owns the wait for its first word, and its latest one. It does not know how blocks are made or sent,
and decides nothing: a way that this request did not offer is not followed.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final

import structlog

from edge_agent.planning import Plan, requested_execution
from scout_core.control.offers import Offer
from scout_core.modes import Execution, Mode
from scout_core.protocol.opening import UplinkShare

SAME_RETENTION: Final = 1e-4
"""Retention travels as a 32-bit float."""
log = structlog.get_logger("scout.edge.guidance")


class Guidance:
    """The scheduler's word on one session.

    Args:
        plan: what the edge chose by itself; held until the cloud asks for something else.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.mode = plan.offer.mode
        """How the rest of the payload is wanted."""
        self._accepted = asyncio.Event()

    def accept(self, share: UplinkShare | None) -> None:
        """The session was accepted; only the first word chooses the plan."""
        if self._accepted.is_set():
            return
        self._accepted.set()
        if share is None:
            return
        offer = self._offered(share)
        if offer is None:
            log.warning("recommendation_not_offered", mode=share.mode.value)
            return
        self.mode = offer.mode
        if offer is not self.plan.offer:
            rate = share.rate_bytes_per_s
            decision = replace(
                self.plan.decision,
                offer=offer,
                reason=f"the cloud's scheduler asked for it, at {rate / 1_000:.0f} kB/s now",
            )
            self.plan = replace(self.plan, decision=decision)

    def advise(self, mode: Mode) -> None:
        """The cloud wants the rest of the payload in this mode."""
        self.mode = mode

    async def settled(self) -> Plan:
        """The plan to follow, once the cloud has accepted the session."""
        await self._accepted.wait()
        return self.plan

    def _offered(self, share: UplinkShare) -> Offer | None:
        return next(
            (
                offer
                for offer in self.plan.offers
                if offer.mode is share.mode
                and abs(offer.retention - share.retention) < SAME_RETENTION
                and _matches(requested_execution(offer), share.execution)
            ),
            None,
        )


def _matches(execution: Execution | None, wanted: Execution | None) -> bool:
    return wanted is None or execution is wanted

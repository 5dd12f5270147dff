"""What an edge makes of the cloud scheduler's word: it follows what it offered, and only that."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from edge_agent.guidance import Guidance
from edge_agent.planning import Plan
from scout_core.control.offers import Offer, RequestFacts
from scout_core.control.policy import Decision
from scout_core.modes import Execution, Mode
from scout_core.protocol.opening import UplinkShare

BF16 = Offer(Mode.KV_BF16, 1.0, Execution.EVICT, 100_000, 1.0, 0.0, 0.1)
INT4 = Offer(Mode.KV_INT4, 1.0, Execution.EVICT, 30_000, 0.9, 0.0, 0.1)
EVICT = Offer(Mode.SCOUT, 0.1, Execution.EVICT, 500, 0.6, 0.0, 0.1)
SPARSE = replace(EVICT, execution=Execution.SPARSE, payload_bytes=60)
PLAN = Plan(
    Decision(BF16, 0.5, 0.95, "the best that fits"),
    (BF16, INT4, EVICT, SPARSE),
    RequestFacts(context_tokens=100, head_tokens=5, tail_tokens=5),
    1e6,
)


@pytest.fixture
def guidance() -> Guidance:
    return Guidance(PLAN)


async def test_nothing_is_settled_before_the_cloud_accepts(guidance: Guidance) -> None:
    waiting = asyncio.create_task(guidance.settled())
    await asyncio.sleep(0)
    assert not waiting.done()
    guidance.accept(None)
    assert (await waiting) is PLAN


async def test_the_recommended_offer_replaces_the_plan_and_says_why(guidance: Guidance) -> None:
    guidance.accept(UplinkShare(50_000.0, Mode.KV_INT4, 1.0))
    plan = await guidance.settled()
    assert plan.offer is INT4
    assert plan.decision.reason == "the cloud's scheduler asked for it, at 50 kB/s now"
    assert guidance.mode is Mode.KV_INT4


@pytest.mark.parametrize("offer", [EVICT, SPARSE])
async def test_the_execution_tells_two_offers_of_one_retention_apart(
    guidance: Guidance, offer: Offer
) -> None:
    as_it_travels = 0.10000000149011612
    guidance.accept(UplinkShare(1_000.0, Mode.SCOUT, as_it_travels, offer.execution))
    assert (await guidance.settled()).offer is offer


async def test_what_was_not_offered_is_not_followed(guidance: Guidance) -> None:
    guidance.accept(UplinkShare(1_000.0, Mode.KV_SELECT, 0.5))
    assert (await guidance.settled()) is PLAN


async def test_an_acceptance_after_a_resume_changes_nothing(guidance: Guidance) -> None:
    guidance.accept(UplinkShare(50_000.0, Mode.KV_BF16, 1.0))
    guidance.accept(UplinkShare(50_000.0, Mode.KV_INT4, 1.0))
    assert (await guidance.settled()).offer is BF16


async def test_later_advice_changes_how_the_rest_is_wanted(guidance: Guidance) -> None:
    guidance.accept(UplinkShare(50_000.0, Mode.KV_BF16, 1.0))
    guidance.advise(Mode.SCOUT)
    assert guidance.mode is Mode.SCOUT
    assert (await guidance.settled()).offer is BF16

"""Whole runs on links whose right answer is known."""

from __future__ import annotations

from itertools import pairwise

import pytest

from scout_core.control.policies import ChanceConstraintPolicy, FixedPolicy, TokensPolicy
from scout_core.evaluation.paper_pairs import bundled_pair, paper_pair, paper_quality
from scout_core.evaluation.policy_links import Link
from scout_core.evaluation.policy_simulation import Contender, LinkRun, Outcome
from scout_core.evaluation.policy_study import contenders, ours
from scout_core.evaluation.policy_workload import Workload, planned_requests
from scout_core.modes import Mode
from scout_core.testbed.schedule import RateSchedule

PAIR = bundled_pair(paper_quality(0.98))
EXACT = Workload(compute_noise=0.0)
FAST = Link("fast", "constant", RateSchedule.constant(2000.0))
SLOW = Link("slow", "constant", RateSchedule.constant(0.3))
ORACLE = Contender("oracle", None)


def outcomes(link: Link, contender: Contender, count: int = 60) -> list[Outcome]:
    requests = planned_requests(PAIR, EXACT, count, "test")
    return list(LinkRun(link, PAIR, contender).outcomes(requests))


def test_equal_seeds_give_equal_requests_and_they_do_not_overlap() -> None:
    first = planned_requests(PAIR, Workload(), 30, "a")
    assert first == planned_requests(PAIR, Workload(), 30, "a")
    assert first != planned_requests(PAIR, Workload(), 30, "b")
    for earlier, later in pairwise(first):
        assert later.arrival_s - earlier.arrival_s > max(Workload().deadlines_s)


@pytest.mark.parametrize("link", [FAST, SLOW])
def test_no_policy_beats_the_oracle_where_nothing_is_random(link: Link) -> None:
    best = sum(outcome.utility for outcome in outcomes(link, ORACLE))
    for contender in contenders():
        total = sum(outcome.utility for outcome in outcomes(link, contender))
        # Mixed modes after a switch may be worth a shade more than any single mode.
        assert total <= best + 0.05, contender.name


@pytest.mark.parametrize("link", [FAST, SLOW])
def test_ours_nearly_equals_the_oracle_on_a_constant_link(link: Link) -> None:
    mine = sum(outcome.utility for outcome in outcomes(link, ours()))
    best = sum(outcome.utility for outcome in outcomes(link, ORACLE))
    assert mine >= 0.97 * best


def test_ours_sends_no_kv_over_a_slow_link_and_some_over_a_fast_one() -> None:
    assert all(outcome.mode is Mode.SCOUT for outcome in outcomes(SLOW, ours()))
    assert any(outcome.mode.carries_kv for outcome in outcomes(FAST, ours()))


def test_a_fixed_mode_pays_for_every_byte_of_its_kv() -> None:
    for outcome in outcomes(FAST, Contender("fixed", FixedPolicy(Mode.KV_BF16)), 10):
        prefix_bytes = outcome.context_tokens * PAIR.kv_bf16_bytes_per_token
        assert outcome.payload_bytes > prefix_bytes


def test_tokens_take_the_time_of_the_clouds_prefill() -> None:
    (request, *_) = planned_requests(PAIR, EXACT, 5, "test")
    (outcome, *_) = outcomes(FAST, Contender("tokens", TokensPolicy()), 5)
    full = next(offer for offer in request.offers if offer.mode is Mode.SCOUT)
    assert outcome.ttft_s >= full.cloud_s + request.cloud_queue_s
    assert outcome.ttft_s < full.cloud_s + request.cloud_queue_s + 0.1


def test_knowing_the_link_is_worth_no_less_than_forecasting_it() -> None:
    wild = Link("wild", "x", RateSchedule((0.0, 2.0, 5.0), (200.0, 1.0, 50.0), 9.0))
    known = Contender("known", ChanceConstraintPolicy(), knows_link=True)
    assert sum(o.utility for o in outcomes(wild, known)) >= sum(
        o.utility for o in outcomes(wild, Contender("ours", ChanceConstraintPolicy(), learns=True))
    )


def test_paper_pairs_serve_long_contexts_by_scout_on_a_mobile_uplink() -> None:
    pair = paper_pair("3b", "14b")
    link = Link("lte", "constant", RateSchedule.constant(30.0))
    requests = planned_requests(pair, EXACT, 40, "paper")
    for outcome in LinkRun(link, pair, ours()).outcomes(requests):
        if outcome.context_tokens >= 1024:
            assert outcome.mode is Mode.SCOUT

"""Virtual time: the physics, and what each allocator makes of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scout_core.allocation.baselines import Baseline
from scout_core.allocation.offer import Offer
from scout_core.evaluation.allocation_contenders import (
    STUDY_POLICY,
    BaselineContender,
    SchedulerContender,
)
from scout_core.evaluation.allocation_simulation import NO_OFFER, Outcome, play
from scout_core.evaluation.allocation_workload import (
    Arrivals,
    CapacityKind,
    Mix,
    Pair,
    PlannedRequest,
    Scenario,
    Workload,
    build,
    offers_for,
)
from scout_core.modes import Mode
from scout_core.testbed.schedule import RateSchedule

MEGABYTE = 1_000_000


def workload(
    requests: list[PlannedRequest], mbps: float = 8.0, uplink: RateSchedule | None = None
) -> Workload:
    schedule = RateSchedule.constant(mbps) if uplink is None else uplink
    return Workload(tuple(requests), schedule, mbps * 1e6 / 8)


def question(agent: int, arrival_s: float, deadline_s: float, *offers: Offer) -> PlannedRequest:
    return PlannedRequest(agent, arrival_s, deadline_s, offers)


WHOLE = Offer(Mode.KV_BF16, 1.0, MEGABYTE, 1.0, 0.25, 0.125)
SMALL = Offer(Mode.KV_INT4, 1.0, MEGABYTE // 4, 0.9, 0.25, 0.125)
SCOUT = Offer(Mode.SCOUT, 0.5, 400, 0.5, 0.1, 0.2)


def test_a_lone_transfer_takes_edge_time_bytes_over_rate_and_cloud_time() -> None:
    alone = workload([question(0, 1.0, 2.0, WHOLE)])
    for contender in (BaselineContender(Baseline.FCFS), SchedulerContender(alone)):
        played = play(alone, contender)
        assert played.first_token_s[0] == pytest.approx(0.25 + 1.0 + 0.125, abs=1e-6)
        assert played.in_time[0]
        assert played.sent_bytes[0] == pytest.approx(MEGABYTE, abs=1)


def test_equal_share_makes_both_late_where_each_alone_would_be_in_time() -> None:
    both = workload([question(agent, 0.0, 1.5, WHOLE, SMALL) for agent in range(2)])
    shared = play(both, BaselineContender(Baseline.EQUAL_SHARE))
    assert not shared.in_time.any()
    assert play(both, SchedulerContender(both)).in_time.all()


def test_informed_agents_choose_what_their_share_carries() -> None:
    both = workload([question(agent, 0.0, 1.5, WHOLE, SMALL) for agent in range(2)])
    played = play(both, BaselineContender(Baseline.EQUAL_SHARE, informed=True))
    # The first to choose among simultaneous ones already sees both.
    assert played.in_time.all()
    assert played.offers.tolist() == [1, 1]


def test_a_request_is_given_up_when_its_patience_ends() -> None:
    hopeless = workload([question(0, 0.0, 1.0, Offer(Mode.KV_BF16, 1.0, 10**8, 1.0))])
    played = play(hopeless, BaselineContender(Baseline.FCFS))
    assert played.outcome == (Outcome.GIVEN_UP,)
    assert played.sent_bytes[0] == pytest.approx(2 * MEGABYTE, rel=1e-6)
    assert played.quality[0] == 0.0


def test_ours_turns_a_hopeless_request_away_at_once() -> None:
    hopeless = workload([question(0, 0.0, 1.0, Offer(Mode.KV_BF16, 1.0, 10**8, 1.0))])
    played = play(hopeless, SchedulerContender(hopeless))
    assert played.outcome == (Outcome.REJECTED,)
    assert played.offers[0] == NO_OFFER
    assert played.sent_bytes[0] == 0.0


def test_when_the_uplink_collapses_ours_falls_back_and_is_still_in_time() -> None:
    falling = RateSchedule.from_spans([(0.5, 8.0), (100.0, 0.08)], loop=False)
    collapse = workload([question(0, 0.0, 1.5, WHOLE, SMALL, SCOUT)], uplink=falling)
    played = play(collapse, SchedulerContender(collapse))
    assert played.in_time[0]
    assert played.offers[0] == 2
    assert not play(collapse, BaselineContender(Baseline.EDF)).in_time[0]


def test_received_bytes_count_after_a_switch_between_whole_kv_offers() -> None:
    # 0.25 MB of bf16 until 0.5 s; then 0.25 MB/s: three quarters of int4 fit, not of bf16.
    slower = RateSchedule.from_spans([(0.5, 8.0), (100.0, 2.0)], loop=False)
    switching = workload([question(0, 0.0, 1.5, WHOLE, SMALL, SCOUT)], uplink=slower)
    bold = replace(STUDY_POLICY, caution=0.0)
    played = play(switching, SchedulerContender(switching, bold))
    assert played.offers[0] == 1
    assert played.in_time[0]
    assert 0.9 < played.quality[0] < 1.0


def test_no_allocator_sends_more_than_the_uplink_carries() -> None:
    scenario = Scenario(6, 10.0, Mix.MIXED, Arrivals.POISSON, CapacityKind.TRACE, 3, 5)
    busy = build(scenario)
    end_s = max(request.arrival_s + 2 * request.deadline_s for request in busy.requests)
    carried = busy.uplink.bits_between(0.0, end_s) / 8
    for contender in (*map(BaselineContender, Baseline), SchedulerContender(busy)):
        assert play(busy, contender).sent_bytes.sum() <= carried * (1 + 1e-6)


def test_equal_seeds_give_equal_workloads_and_equal_outcomes() -> None:
    scenario = Scenario(4, 5.0, Mix.MIXED, Arrivals.POISSON, CapacityKind.TRACE, 3, 7)
    first, second = build(scenario), build(scenario)
    assert first.requests == second.requests
    once, again = (play(load, SchedulerContender(load)) for load in (first, second))
    assert np.array_equal(once.first_token_s, again.first_token_s)
    assert np.array_equal(once.quality, again.quality)


def test_kv_sizes_are_those_of_the_models() -> None:
    whole = offers_for(Pair.Q3_7, 170, tokens_only=False)[0]
    assert whole.payload_bytes == 170 * 57_344
    tokens = offers_for(Pair.Q7_14, 170, tokens_only=True)[-1]
    assert (tokens.payload_bytes, tokens.retention) == (366, 1.0)


def test_the_capacity_follows_from_the_load() -> None:
    steady = Scenario(4, 2.0, Mix.HOMOGENEOUS, Arrivals.SYNCHRONISED, CapacityKind.CONSTANT, 1, 0)
    plain, traced = build(steady), build(replace(steady, capacity=CapacityKind.TRACE))
    assert plain.mean_bytes_per_s == pytest.approx(4 * 170 * 57_344 / 1.0 / 2.0)
    assert traced.uplink.mean_mbps(0.0, 120.0) * 1e6 / 8 == pytest.approx(plain.mean_bytes_per_s)

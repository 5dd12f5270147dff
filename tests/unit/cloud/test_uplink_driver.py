"""The cloud's uplinks: who is accepted, at which rate, and what becomes of those who are not."""

from __future__ import annotations

import pytest
from uplink_bench import CAPACITY, INT8, KV, TENANT, Bench

from cloud_server.offers import Alternative, most_payload_bytes
from scout_core.allocation.offer import Offer
from scout_core.errors import (
    CreditExceededError,
    DeadlineError,
    OverloadedError,
    PeerTimeoutError,
)
from scout_core.modes import AgentId, Mode, SessionId, TenantId
from scout_core.protocol import events
from scout_core.protocol.opening import ContextState


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_lone_session_is_accepted_at_once_with_the_best_offer_and_the_whole_uplink(
    bench: Bench,
) -> None:
    session = bench.open(bench.attach("a"))
    bench.uplink.tick()
    share = session.accepted.share
    assert share is not None
    assert (share.mode, share.retention) == (Mode.KV_BF16, 1.0)
    assert session.rate_bytes_per_s == share.rate_bytes_per_s == pytest.approx(CAPACITY)
    assert session.accepted.context_state is ContextState.ABSENT


def test_a_crowd_shares_the_capacity_and_everybody_is_asked_for_what_fits(bench: Bench) -> None:
    sessions = [bench.open(bench.attach(f"a{number}")) for number in range(4)]
    bench.uplink.tick()
    modes = [session.accepted.share.mode for session in sessions if session.accepted.share]
    assert modes.count(Mode.KV_BF16) <= 1
    assert Mode.SCOUT in modes or Mode.KV_INT8 in modes
    assert bench.granted_bytes_per_s <= CAPACITY * (1 + 1e-9)


def test_what_one_session_leaves_goes_to_the_others(bench: Bench) -> None:
    first, second = bench.attach("a"), bench.attach("b")
    early, late = bench.open(first, deadline_s=1.0), bench.open(second, deadline_s=3.0)
    bench.uplink.tick()
    assert early.rate_bytes_per_s == pytest.approx(CAPACITY)
    assert late.rate_bytes_per_s == 0.0
    bench.uplink.finish(SessionId("default/a/s"))
    bench.run(0.02)
    assert late.rate_bytes_per_s == pytest.approx(CAPACITY)


def test_an_uplink_without_a_configured_capacity_is_not_scheduled(bench: Bench) -> None:
    bench.attach("a", group="elsewhere")
    assert bench.uplink.seat_for(AgentId("a"), TENANT) is None


def test_a_server_without_capacities_asks_nobody_to_attach() -> None:
    assert Bench(uplink_capacity_bytes_per_s={}).uplink.seat_for(AgentId("a"), TENANT) is None


def test_the_next_in_turn_has_the_uplink_while_the_last_bytes_of_another_are_on_their_way(
    bench: Bench,
) -> None:
    only = (INT8,)
    first = bench.open(bench.attach("a"), deadline_s=0.5, ways=only)
    bench.open(bench.attach("b"), name="t", deadline_s=1.0, ways=only)
    bench.uplink.tick()
    assert first.rate_bytes_per_s == pytest.approx(CAPACITY)
    first.credit_bytes, first.received_bytes = 400_000, 360_000
    bench.run(0.1)
    assert first.rate_bytes_per_s == 0.0
    assert bench.granted_bytes_per_s == pytest.approx(CAPACITY)


def test_a_share_taken_back_before_there_was_any_credit_lets_no_block_begin(bench: Bench) -> None:
    """A few bytes would have a block coded in what the session was granted while it was alone."""
    first = bench.open(bench.attach("a"), deadline_s=3.0)
    bench.uplink.tick()
    bench.open(bench.attach("b"), deadline_s=1.0)
    bench.run(0.02)
    assert first.posted[-1] == events.RateAllocated(0.0, releases=False)


def test_a_share_that_goes_on_leaves_what_it_has_gathered(bench: Bench) -> None:
    first = bench.open(bench.attach("a"), deadline_s=3.0)
    bench.uplink.tick()
    first.credit_bytes = 10_000
    bench.open(bench.attach("b"), deadline_s=1.0)
    bench.run(0.02)
    assert first.posted[-1] == events.RateAllocated(0.0, releases=True)


def test_a_request_that_does_not_fit_is_told_when_it_could(bench: Bench) -> None:
    seats = [bench.attach(f"a{number}") for number in range(3)]
    fixed = (KV,)
    sessions = [bench.open(seat, ways=fixed) for seat in seats]
    bench.uplink.tick()
    errors = [
        event.error
        for session in sessions
        for event in session.posted
        if isinstance(event, events.Abort)
    ]
    assert len(errors) == 2
    for error in errors:
        assert isinstance(error, OverloadedError)
        assert float(error.details["retry_after_s"]) > 0
        assert float(error.details["earliest_s"]) > 1.0
    labels = {"group": "cell", "tenant": "default", "cause": "capacity"}
    assert bench.sample("uplink_rejections_total", **labels) == 2


def test_a_deadline_that_the_whole_uplink_cannot_meet_is_refused_as_such(bench: Bench) -> None:
    session = bench.open(bench.attach("a"), deadline_s=0.1, ways=(KV,))
    bench.uplink.tick()
    (abort,) = [event for event in session.posted if isinstance(event, events.Abort)]
    assert isinstance(abort.error, DeadlineError)
    assert float(abort.error.details["earliest_s"]) == pytest.approx(
        0.8, abs=0.02
    )  # a margin is left
    assert "retry_after_s" not in abort.error.details


def test_bytes_count_by_how_they_were_coded_even_if_the_grant_changed_before_the_first(
    bench: Bench,
) -> None:
    seat = bench.attach("a")
    session = bench.open(seat, deadline_s=3.0)
    bench.uplink.tick()
    assert session.accepted.share is not None
    assert session.accepted.share.mode is Mode.KV_BF16
    crowd = tuple(bench.attach(f"b{number}") for number in range(6))
    for other in crowd:
        bench.open(other, deadline_s=3.0)
    bench.run(0.1, beats=(seat, *crowd))
    (mine,) = [each for each in bench.uplink.sessions() if each.seat is seat]
    assert mine.share().mode is not Mode.KV_BF16  # before the first byte
    # A quarter of the context as bf16, then int8: three quarters of int8's bytes are left.
    session.received_bytes = 200_000
    session.switches = (events.SwitchReceived(Mode.KV_INT8, 1.0, 200_000, "cloud_allocation"),)
    bench.run(0.02, beats=(seat, *crowd))
    for other in crowd:
        bench.uplink.finish(SessionId(f"default/{other.agent}/s"))
    while session.received_bytes < 490_000:
        session.received_bytes += 9_000
        bench.run(0.01, beats=(seat,))
    assert session.rate_bytes_per_s


def test_a_share_made_for_another_offer_is_told_on_the_control_stream(bench: Bench) -> None:
    seat = bench.attach("a")
    session = bench.open(seat, deadline_s=1.0)
    bench.uplink.tick()
    crowd = tuple(bench.attach(f"b{number}") for number in range(4))
    for other in crowd:
        bench.open(other, deadline_s=1.0)
    bench.run(0.05, beats=(seat, *crowd))
    mine = [advice for advice in bench.advice if advice.share.mode is not Mode.KV_BF16]
    assert mine
    assert mine[0].session_id == "s"
    assert session.accepted.share is not None
    assert session.accepted.share.mode is Mode.KV_BF16


def test_more_than_was_offered_ends_the_session_and_is_reported(bench: Bench) -> None:
    liar, honest = bench.attach("liar"), bench.attach("honest")
    small = (Alternative(Offer(Mode.SCOUT, 1.0, 1_000, 1.0), None),)
    lying, fair = bench.open(liar, ways=small), bench.open(honest, deadline_s=2.0)
    bench.uplink.tick()
    lying.received_bytes = 1_000 + 100 * 4  # its offer, and the token ids beside
    bench.run(0.05, beats=(liar, honest))
    assert len(bench.uplink.sessions()) == 2
    lying.received_bytes = most_payload_bytes(small, context_tokens=100)
    bench.run(0.15, beats=(liar, honest))
    (abort,) = [event for event in lying.posted if isinstance(event, events.Abort)]
    assert isinstance(abort.error, CreditExceededError)
    assert bench.sample("uplink_reports_total", group="cell", kind="beyond_offer") == 1
    assert fair.rate_bytes_per_s == pytest.approx(CAPACITY)


def test_who_exceeds_its_credit_is_reported_and_kept_out_for_a_while(bench: Bench) -> None:
    seat = bench.attach("a")
    bench.uplink.contain(seat.agent, seat.group)
    with pytest.raises(OverloadedError, match="beyond its credit") as refused:
        bench.uplink.seat_for(seat.agent, TENANT)
    assert 0 < float(refused.value.details["retry_after_s"]) <= 2.0
    assert bench.sample("uplink_reports_total", group="cell", kind="beyond_grant") == 1
    bench.now += 2.1
    assert bench.uplink.seat_for(seat.agent, TENANT) is seat
    assert bench.sample("uplink_opens_kept_out_total", group="cell") == 1
    bench.uplink.contain(seat.agent, seat.group)
    bench.now += 2.1
    with pytest.raises(OverloadedError):
        bench.uplink.seat_for(seat.agent, TENANT)


def test_a_session_without_progress_long_after_its_deadline_is_ended(bench: Bench) -> None:
    seat = bench.attach("a")
    session = bench.open(seat)
    bench.run(bench.uplink.policy.forget_after_s + 2.0, step_s=0.1, beats=(seat,))
    (abort,) = [event for event in session.posted if isinstance(event, events.Abort)]
    assert isinstance(abort.error, PeerTimeoutError)
    assert bench.uplink.sessions() == ()


def test_a_tenant_that_counts_more_gets_the_better_offers() -> None:
    bench = Bench(tenant_weights={"gold": 10.0})
    plain = bench.open(bench.attach("a"))
    gold_seat = bench.attach("b", tenant=TenantId("gold"))
    gold = bench.open(gold_seat)
    bench.uplink.tick()
    assert gold.accepted.share is not None
    assert plain.accepted.share is not None
    assert gold.accepted.share.mode is Mode.KV_BF16
    assert plain.accepted.share.mode is not Mode.KV_BF16


def test_the_sum_of_all_rates_never_exceeds_the_capacity_while_sessions_come_and_go() -> None:
    bench = Bench()
    sums: list[float] = []
    seats = tuple(bench.attach(f"a{number}") for number in range(6))
    for turn, seat in enumerate(seats):
        bench.open(seat, deadline_s=0.5 + 0.3 * turn)
        bench.run(0.07, beats=seats)
        sums.append(bench.granted_bytes_per_s)
    bench.uplink.detach(seats[0])
    sums.append(bench.granted_bytes_per_s)
    for seat in seats[1:]:
        bench.uplink.finish(SessionId(f"default/{seat.agent}/s"))
        bench.run(0.03, beats=seats[1:])
        sums.append(bench.granted_bytes_per_s)
    assert max(sums) <= CAPACITY * (1 + 1e-6)
    assert bench.sample("uplink_solve_seconds_count") > 5

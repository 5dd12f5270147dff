"""Agents of a scheduled uplink that leave, fall silent, move or come back, and their sessions."""

from __future__ import annotations

import pytest
from uplink_bench import CAPACITY, TENANT, Bench

from scout_core.errors import (
    PeerUnavailableError,
)
from scout_core.modes import AgentId, SessionId, TenantId


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_nobody_sends_past_the_shares_by_not_attaching_or_under_another_tenant(
    bench: Bench,
) -> None:
    bench.attach("a", tenant=TenantId("other"))
    for agent in ("a", "unknown"):
        with pytest.raises(PeerUnavailableError, match="not attached"):
            bench.uplink.seat_for(AgentId(agent), TENANT)


def test_a_session_without_a_stream_lends_its_share_until_it_has_one(bench: Bench) -> None:
    first = bench.open(bench.attach("a"), deadline_s=1.0)
    second = bench.open(bench.attach("b"), deadline_s=3.0)
    bench.uplink.tick()
    assert first.rate_bytes_per_s
    first.is_suspended = True
    bench.uplink.pause(SessionId("default/a/s"))
    bench.run(0.02)
    assert first.rate_bytes_per_s == 0.0
    assert second.rate_bytes_per_s == pytest.approx(CAPACITY)
    first.is_suspended = False
    bench.run(0.12)
    assert first.rate_bytes_per_s


def test_a_session_without_a_stream_still_lends_when_its_agent_attaches_anew(bench: Bench) -> None:
    first = bench.open(bench.attach("a"), deadline_s=1.0)
    second = bench.open(bench.attach("b"), deadline_s=3.0)
    bench.uplink.tick()
    first.is_suspended = True
    bench.uplink.pause(SessionId("default/a/s"))
    bench.attach("a")
    bench.run(0.22)
    assert first.rate_bytes_per_s == 0.0
    assert second.rate_bytes_per_s == pytest.approx(CAPACITY)


def test_a_silent_agent_loses_its_share_and_gets_it_back_when_it_is_heard(bench: Bench) -> None:
    seat = bench.attach("a")
    session = bench.open(seat, deadline_s=60.0)
    bench.uplink.tick()
    assert session.rate_bytes_per_s
    bench.run(bench.uplink.policy.lease_s + 0.2)
    assert session.rate_bytes_per_s == 0.0
    assert bench.sample("uplink_reports_total", group="cell", kind="lease_expired") == 1
    bench.uplink.heard(seat)
    bench.run(0.02, beats=(seat,))
    assert session.rate_bytes_per_s == pytest.approx(CAPACITY)


def test_a_session_waits_while_its_agent_is_gone_and_goes_on_with_what_is_left(
    bench: Bench,
) -> None:
    seat = bench.attach("a")
    session = bench.open(seat, deadline_s=2.0)
    bench.uplink.tick()
    session.received_bytes = 300_000
    bench.run(0.2, beats=(seat,))
    bench.uplink.detach(seat)
    assert session.rate_bytes_per_s == 0.0
    again = bench.attach("a")
    bench.run(0.02, beats=(again,))
    assert session.rate_bytes_per_s == pytest.approx(CAPACITY)
    (left,) = next(iter(bench.uplink.sessions())).alternatives
    assert left.offer.payload_bytes == 500_000
    # What came before is not taken for something sent without a grant.
    assert bench.sample("uplink_reports_total", group="cell", kind="beyond_grant") == 0


def test_the_stream_that_an_agent_left_does_not_detach_the_one_it_has(bench: Bench) -> None:
    old = bench.attach("a")
    new = bench.attach("a")
    bench.uplink.detach(old)
    assert bench.uplink.seat_for(AgentId("a"), TENANT) is new


def test_an_agent_that_moves_to_an_unscheduled_uplink_is_paced_no_more(bench: Bench) -> None:
    session = bench.open(bench.attach("a"))
    bench.uplink.tick()
    bench.attach("a", group="elsewhere")
    assert session.rate_bytes_per_s is None
    assert bench.uplink.sessions() == ()

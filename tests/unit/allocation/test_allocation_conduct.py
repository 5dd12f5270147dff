"""Agents that send more than they were granted or offered."""

from __future__ import annotations

import pytest

from scout_core.allocation.events import (
    AgentHeard,
    ReportKind,
    RequestProgress,
)
from scout_core.modes import Mode
from tests.support.allocation_cases import ask, attach, offer, reports, scheduler


def test_an_agent_that_sends_beyond_its_grant_is_contained_and_reported() -> None:
    uplink = scheduler()
    bad, good = attach(uplink, "bad"), attach(uplink, "good")
    floods = ask(
        uplink, "f", bad, 0.0, deadline_s=10.0, offers=(offer(Mode.KV_INT4, 5 * 10**6, 1.0),)
    )
    honest = ask(uplink, "h", good, 0.0, deadline_s=2.0)
    uplink.tick(0.0)
    actions = uplink.receive(RequestProgress(floods, 5_000_000), 0.1)
    assert reports(actions) == [ReportKind.BEYOND_GRANT]
    assert uplink.rate_bytes_per_s(floods, 0.1) == 0.0
    uplink.receive(AgentHeard(good), 0.1)
    uplink.tick(0.1)
    assert uplink.rate_bytes_per_s(honest, 0.1) == pytest.approx(1_000_000.0)


def test_a_contained_agent_is_reported_once_and_returns_when_its_debt_is_paid() -> None:
    uplink = scheduler()
    agent = attach(uplink, "a")
    session = ask(
        uplink, "s", agent, 0.0, deadline_s=60.0, offers=(offer(Mode.KV_INT4, 10**7, 1.0),)
    )
    uplink.tick(0.0)
    kinds = list[ReportKind]()
    for step in range(1, 4):
        kinds += reports(uplink.receive(RequestProgress(session, step * 3_000_000), step / 100))
    assert kinds == [ReportKind.BEYOND_GRANT]
    now = 0.1
    while now < 12.0:
        uplink.receive(AgentHeard(agent), now)
        uplink.tick(now)
        now += 0.1
    assert uplink.rate_bytes_per_s(session, now) > 0.0


def test_a_payload_larger_than_offered_loses_its_place() -> None:
    uplink = scheduler()
    agent = attach(uplink, "a")
    liar = ask(uplink, "s", agent, 0.0, deadline_s=2.0, offers=(offer(Mode.KV_SELECT, 1_000, 1.0),))
    honest = ask(uplink, "h", attach(uplink, "b"), 0.0, deadline_s=2.0)
    uplink.tick(0.0)
    actions = uplink.receive(RequestProgress(liar, 100_000), 0.1)
    assert reports(actions) == [ReportKind.BEYOND_OFFER]
    uplink.tick(0.2)
    assert uplink.rate_bytes_per_s(liar, 0.2) < 10_000.0
    assert uplink.rate_bytes_per_s(honest, 0.2) > 900_000.0

"""Who is kept out of a scheduled uplink, and for how long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_server.seats import LONGEST_EXCLUSION_S, Exclusion, Seating, next_exclusion
from scout_core.errors import OverloadedError
from scout_core.modes import AgentId

AGENT = AgentId("a")
SHORTEST_S = 2.0


def test_who_floods_again_as_soon_as_it_is_let_in_is_kept_out_twice_as_long() -> None:
    exclusion, now, lengths = None, 100.0, list[float]()
    for _ in range(8):
        exclusion = next_exclusion(exclusion, SHORTEST_S, now)
        now = exclusion.until_s
        lengths.append(exclusion.length_s)
    assert lengths == [2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 64.0, 64.0]


def test_an_exclusion_is_forgotten_after_as_long_again() -> None:
    before = Exclusion(until_s=110.0, length_s=8.0)
    assert next_exclusion(before, SHORTEST_S, 117.9).length_s == 16.0
    assert next_exclusion(before, SHORTEST_S, 118.0) == Exclusion(120.0, SHORTEST_S)


def test_sessions_that_fail_together_count_once() -> None:
    before = Exclusion(until_s=102.0, length_s=2.0)
    assert next_exclusion(before, SHORTEST_S, 100.5) == Exclusion(102.5, 2.0)


@given(pauses_s=st.lists(st.floats(0.0, 200.0), min_size=2, max_size=12))
def test_every_exclusion_is_between_the_shortest_and_the_longest(
    pauses_s: list[float],
) -> None:
    exclusion, now = None, 0.0
    for pause_s in pauses_s:
        exclusion = next_exclusion(exclusion, SHORTEST_S, now)
        assert SHORTEST_S <= exclusion.length_s <= LONGEST_EXCLUSION_S
        now = exclusion.until_s + pause_s


def test_an_agent_is_refused_until_its_exclusion_is_over() -> None:
    seating = Seating()
    seating.expect_welcome(AGENT, 100.0)
    seating.keep_out(AGENT, SHORTEST_S, 100.0)
    with pytest.raises(OverloadedError) as refused:
        seating.expect_welcome(AGENT, 101.5)
    assert refused.value.details["retry_after_s"] == "0.5"
    seating.expect_welcome(AGENT, 102.0)
    seating.keep_out(AGENT, SHORTEST_S, 102.0)
    with pytest.raises(OverloadedError):
        seating.expect_welcome(AGENT, 105.9)
    seating.expect_welcome(AGENT, 110.0)


def test_agents_that_come_under_ever_new_names_are_not_remembered_for_ever() -> None:
    seating = Seating()
    for second in range(1_000):
        seating.keep_out(AgentId(f"flooder-{second}"), SHORTEST_S, float(second))
    assert seating.exclusions <= 1 + 2 * SHORTEST_S

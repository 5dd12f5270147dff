"""What is left of a request's offers, however it got there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scout_core.allocation.events import RequestArrived
from scout_core.allocation.offer import Offer
from scout_core.allocation.outlook import TAIL_BYTES, flows_of, least_remaining, problem_of
from scout_core.allocation.requests import RequestTable
from scout_core.modes import AgentId, Mode, SessionId

SESSION = SessionId("s")
EXACT, COARSE, SELECTED = 0, 1, 2
OFFERS = (
    Offer(Mode.KV_BF16, 1.0, 100_000, 1.0),
    Offer(Mode.KV_INT4, 1.0, 25_000, 0.8),
    Offer(Mode.KV_SELECT, 0.5, 12_000, 0.7),
)
SLOTS = np.zeros(1, dtype=np.int64)
CAPACITY = 1e6


def sending(offer: int) -> tuple[RequestTable, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """A table whose one request was granted an offer, and its slot."""
    table = RequestTable()
    request = RequestArrived(SESSION, AgentId("a"), 10.0, OFFERS)
    slots = SLOTS + table.add(request, weight=1.0, limit_bytes_per_s=CAPACITY, now=0.0)
    table.adopt(slots, SLOTS + offer)
    return table, slots


@pytest.mark.parametrize(
    ("offer", "received", "left"),
    [
        (EXACT, 50_000, (50_000, 12_500, 12_000)),
        (COARSE, 5_000, (80_000, 20_000, 12_000)),
        (SELECTED, 5_000, (100_000, 25_000, 7_000)),
    ],
)
def test_whole_kv_continues_whole_kv_and_a_selection_itself(
    offer: int, received: int, left: tuple[int, ...]
) -> None:
    table, slots = sending(offer)
    table.advance(SESSION, received, 1.0)
    problem = problem_of(table, slots, 1.0, CAPACITY)
    assert problem.payload_bytes[0] == pytest.approx(left)


def test_what_arrived_coarsely_is_worth_what_it_was_sent_in() -> None:
    table, slots = sending(COARSE)
    table.advance(SESSION, 12_500, 1.0)
    problem = problem_of(table, slots, 1.0, CAPACITY)
    assert problem.value[0, :2] == pytest.approx((0.9, 0.8))


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 20_000), st.integers(0, 20_000))),
    st.integers(0, 2),
)
def test_transfers_have_left_what_the_choice_was_made_for(
    history: list[tuple[int, int, int]], choice: int
) -> None:
    table, slots = sending(EXACT)
    received = promised = 0
    for offer, more, ahead in history:
        table.switch(SESSION, offer)
        received += more
        promised = max(promised, received + ahead)
        table.promise(SESSION, promised, 1.0)
        table.advance(SESSION, received, 1.0)
    flows = flows_of(table, slots, SLOTS + choice, 1.0)
    problem = problem_of(table, slots, 1.0, CAPACITY)
    if not flows.open_ended[0]:
        assert flows.remaining_bytes == pytest.approx(problem.payload_bytes[0, choice])


def test_a_payload_that_is_complete_by_its_size_and_goes_on_has_a_tail() -> None:
    table, slots = sending(SELECTED)
    table.promise(SESSION, 12_000, 0.5)
    table.advance(SESSION, 11_000, 1.0)
    flows = flows_of(table, slots, SLOTS + SELECTED, 1.0)
    assert (flows.remaining_bytes[0], flows.open_ended[0]) == (0.0, False)
    table.advance(SESSION, 12_000, 1.1)
    flows = flows_of(table, slots, SLOTS + SELECTED, 1.1)
    assert (flows.remaining_bytes[0], flows.open_ended[0]) == (TAIL_BYTES, True)


def test_among_equals_the_least_is_what_is_being_sent() -> None:
    table = RequestTable()
    offers = (Offer(Mode.SCOUT, 1.0, 500, 0.5), Offer(Mode.SCOUT, 0.5, 500, 0.4))
    request = RequestArrived(SESSION, AgentId("a"), 10.0, offers)
    slots = SLOTS + table.add(request, weight=1.0, limit_bytes_per_s=CAPACITY, now=0.0)
    assert least_remaining(table, slots) == [0]
    table.adopt(slots, SLOTS + 1)
    assert least_remaining(table, slots) == [1]

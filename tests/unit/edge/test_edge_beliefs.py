"""What the agent believes of the cloud's store: bounded, forgetful, corrected."""

from __future__ import annotations

from edge_agent.beliefs import BELIEF_TTL_S, MAX_BELIEFS, CloudBeliefs
from scout_core.control.offers import CloudContext
from scout_core.modes import ContextHash


def key(number: int) -> ContextHash:
    return ContextHash(number.to_bytes(32, "big"))


def test_nothing_is_believed_of_an_unknown_context() -> None:
    assert CloudBeliefs().about(key(1), 0.0) is CloudContext.ABSENT


def test_last_word_counts() -> None:
    beliefs = CloudBeliefs()
    beliefs.note(key(1), CloudContext.KV, 0.0)
    assert beliefs.about(key(1), 1.0) is CloudContext.KV
    beliefs.note(key(1), CloudContext.ABSENT, 2.0)
    assert beliefs.about(key(1), 3.0) is CloudContext.ABSENT


def test_belief_ends_with_its_time_to_live() -> None:
    beliefs = CloudBeliefs()
    beliefs.note(key(1), CloudContext.TOKENS, 0.0)
    assert beliefs.about(key(1), BELIEF_TTL_S) is CloudContext.TOKENS
    assert beliefs.about(key(1), BELIEF_TTL_S + 0.1) is CloudContext.ABSENT


def test_oldest_beliefs_give_way() -> None:
    beliefs = CloudBeliefs()
    for number in range(MAX_BELIEFS + 1):
        beliefs.note(key(number), CloudContext.KV, 0.0)
    assert beliefs.about(key(0), 0.0) is CloudContext.ABSENT
    assert beliefs.about(key(1), 0.0) is CloudContext.KV

"""A slow worker at the cloud slows the sender: memory stays bounded, nothing deadlocks or dies."""

from __future__ import annotations

import pytest
from protocol_examples import PARAMETERS, PumpedEdge, chunk
from simulated_link import LinkShape, SimulatedLink

from scout_core.errors import LocalProtocolError
from scout_core.protocol.actions import SendCredit
from scout_core.protocol.blocks import BlockKind, encode_block
from scout_core.protocol.cloud_session import CloudSession
from scout_core.protocol.cloud_states import CloudState
from scout_core.protocol.credit import KIB, WINDOW_START_BYTES, CreditPolicy
from scout_core.protocol.edge_states import EdgeState
from scout_core.protocol.events import (
    AcceptDecided,
    ConnectionLost,
    OpenReceived,
    PayloadAppended,
    PayloadConsumed,
    PayloadEnded,
    Resumed,
    Start,
)
from scout_core.protocol.opening import ContextState
from scout_core.protocol.payload_receiver import ReceivePolicy
from scout_core.protocol.payload_sender import SendPolicy

BLOCK = encode_block(BlockKind.KV, 1, 0, 16, bytes(48 * KIB))
BLOCKS = 134
LIMIT = 256 * KIB


def link_with_worker(
    consume_after_s: float | None, block: bytes = BLOCK, blocks: int = BLOCKS
) -> SimulatedLink:
    """A fast link into a cloud whose worker takes its time; everything is appended at once."""
    link = SimulatedLink(
        LinkShape(1e7, 0.01),
        PumpedEdge(SendPolicy(initial_credit_bytes=WINDOW_START_BYTES)),
        CloudSession(ReceivePolicy(CreditPolicy(), unconsumed_bytes=LIMIT)),
    )
    link.consume_after_s = consume_after_s
    link.receive_edge(Start(PARAMETERS))
    for _ in range(blocks):
        link.receive_edge(PayloadAppended(block))
    link.receive_edge(PayloadEnded())
    return link


def test_stuck_worker_stops_the_sender_within_the_limit_and_a_window() -> None:
    link = link_with_worker(None)
    link.run(30.0)
    assert link.cloud.received_bytes == link.cloud.credit_bytes
    assert LIMIT < link.cloud.received_bytes < LIMIT + 1024 * KIB
    assert link.commits == 0


def test_edge_does_not_take_a_stuck_worker_for_a_dead_cloud() -> None:
    link = link_with_worker(None)
    link.run(50.0)
    assert link.edge.state is EdgeState.STREAMING
    assert link.edge.unacked_bytes == 0


def test_slow_worker_gets_everything_in_the_end() -> None:
    link = link_with_worker(0.05)
    link.run(60.0)
    assert len(link.blocks) == BLOCKS
    assert link.commits == 1
    assert link.edge.state is EdgeState.COMPLETE


def test_block_larger_than_the_limit_arrives_whole() -> None:
    link = link_with_worker(0.05, encode_block(BlockKind.KV, 1, 0, 16, bytes(4 * LIMIT)), 3)
    link.run(10.0)
    assert len(link.blocks) == 3
    assert link.commits == 1


def full_session() -> CloudSession:
    """Receiving, with more delivered and not consumed than the policy allows."""
    session = CloudSession(ReceivePolicy(CreditPolicy(), unconsumed_bytes=1))
    session.receive(OpenReceived(PARAMETERS), 0.0)
    session.receive(AcceptDecided(ContextState.ABSENT), 0.0)
    session.receive(chunk(0, BLOCK), 0.0)
    return session


def test_credit_goes_on_when_the_worker_has_caught_up() -> None:
    session = full_session()
    before = session.credit_bytes
    session.tick(1.0)
    assert session.credit_bytes == before
    actions = session.receive(PayloadConsumed(len(BLOCK)), 1.1)
    assert SendCredit(session.credit_bytes) in actions
    assert session.credit_bytes > before


def test_what_was_consumed_while_suspended_counts_after_the_resume() -> None:
    session = full_session()
    session.receive(ConnectionLost(LocalProtocolError("The link broke.")), 1.0)
    session.receive(PayloadConsumed(len(BLOCK)), 1.1)
    assert session.state is CloudState.SUSPENDED
    before = session.credit_bytes
    session.receive(Resumed(PARAMETERS), 1.2)
    assert session.credit_bytes > before


@pytest.mark.parametrize("offset", [-1, len(BLOCK) + 1])
def test_consuming_what_was_not_delivered_is_our_mistake(offset: int) -> None:
    with pytest.raises(LocalProtocolError, match="Consumed"):
        full_session().receive(PayloadConsumed(offset), 1.0)

"""Edge and cloud pushed through losses at any moment still deliver the same bytes, once."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from protocol_examples import PumpedEdge
from simulated_link import LinkShape, SimulatedLink

from scout_core.errors import PeerUnavailableError
from scout_core.modes import Mode
from scout_core.protocol.answer import AnswerToken
from scout_core.protocol.blocks import BlockKind, encode_block
from scout_core.protocol.cloud_states import CloudState
from scout_core.protocol.credit import WINDOW_START_BYTES
from scout_core.protocol.edge_states import EdgeState
from scout_core.protocol.events import Cancel, ModeSwitched, PayloadAppended, PayloadEnded
from scout_core.protocol.payload_sender import SendPolicy

ANSWER = tuple(AnswerToken(f"word{index} ", index) for index in range(5))


@dataclass(frozen=True)
class Break:
    """The link breaks ``after_s`` after the one before; None: the cloud does not notice."""

    after_s: float
    down_s: float
    cloud_notices_after_s: float | None


@dataclass(frozen=True)
class Block:
    """A block of ``size`` bytes appended ``after_s`` after the one before."""

    after_s: float
    size: int
    switch_before: bool


BREAKS = st.lists(
    st.builds(
        Break,
        after_s=st.floats(0.0, 1.0),
        down_s=st.sampled_from([0.0, 0.02, 0.4, 8.0]),
        cloud_notices_after_s=st.sampled_from([None, 0.0, 0.01, 3.0]),
    ),
    max_size=6,
)
BLOCKS = st.lists(
    st.builds(
        Block, after_s=st.floats(0.0, 0.3), size=st.integers(1, 60_000), switch_before=st.booleans()
    ),
    max_size=8,
)


class Scenario:
    """An application that appends, switches (withdrawing what it can) and ends its payload."""

    def __init__(self, link: SimulatedLink, blocks: list[Block], breaks: list[Break]) -> None:
        self.link = link
        self.expected: list[tuple[int, bytes]] = []
        self.expected_switches: list[int] = []
        at = 0.0
        for index, block in enumerate(blocks):
            at += block.after_s
            link.at(at, lambda index=index, block=block: self.append(index, block))
        link.at(at, lambda: link.receive_edge(PayloadEnded()))
        at = 0.0
        for broken in breaks:
            at += broken.after_s
            link.at(at, lambda broken=broken: self.break_link(broken))
        link.start()

    def append(self, index: int, block: Block) -> None:
        edge = self.link.edge
        if block.switch_before:
            offset = edge.earliest_switch_offset
            self.link.receive_edge(ModeSwitched(Mode.KV_INT4, 1.0, "deadline_forecast", offset))
            self.expected = [entry for entry in self.expected if entry[0] < offset]
            kept = [earlier for earlier in self.expected_switches if earlier < offset]
            self.expected_switches = [*kept, offset]
        framed = encode_block(BlockKind.KV, 1, index, 1, bytes((index,)) * block.size)
        self.expected.append((edge.appended_bytes, framed))
        self.link.receive_edge(PayloadAppended(framed))

    def break_link(self, broken: Break) -> None:
        if self.link.edge.is_open:
            self.link.reconnect_after_s = broken.down_s
            self.link.break_link(cloud_notices_after_s=broken.cloud_notices_after_s)

    def delivered(self) -> list[tuple[int, bytes]]:
        return [
            (
                block.start_offset,
                encode_block(
                    block.header.kind,
                    block.header.codec_id,
                    block.header.start,
                    block.header.count,
                    block.body,
                ),
            )
            for block in self.link.blocks
        ]


@settings(max_examples=200, deadline=None)
@given(
    blocks=BLOCKS,
    breaks=BREAKS,
    rate_bytes_per_s=st.sampled_from([2e4, 2e5, 1e7]),
    initial_credit_bytes=st.sampled_from([0, 1000, WINDOW_START_BYTES]),
)
def test_machines_deliver_the_same_bytes_and_answer_through_any_losses(
    blocks: list[Block], breaks: list[Break], rate_bytes_per_s: float, initial_credit_bytes: int
) -> None:
    edge = PumpedEdge(SendPolicy(initial_credit_bytes=initial_credit_bytes))
    link = SimulatedLink(LinkShape(rate_bytes_per_s, 0.01), edge, answer=ANSWER)
    scenario = Scenario(link, blocks, breaks)
    link.run(200.0)
    assert link.error is None
    assert link.complete is not None
    assert tuple(link.tokens) == ANSWER
    assert scenario.delivered() == scenario.expected
    assert link.commits == 1
    assert [switch.offset for switch in link.switches] == scenario.expected_switches
    assert edge.held_bytes == 0
    assert link.discarded
    assert link.cloud.state is CloudState.DISCARDED
    assert edge.next_deadline() is None


def stalled(answer: tuple[AnswerToken, ...] = ANSWER) -> SimulatedLink:
    """A link on which the payload is under way."""
    link = SimulatedLink(LinkShape(1e4, 0.01), answer=answer)
    link.start()
    link.run(0.1)
    link.receive_edge(PayloadAppended(encode_block(BlockKind.KV, 1, 0, 1, bytes(60_000))))
    return link


def test_dead_path_is_noticed_within_five_seconds_in_either_phase() -> None:
    streaming = SimulatedLink(LinkShape(1e6, 0.01))
    streaming.reconnect_after_s = 1e9
    streaming.start()
    streaming.run(10.0)
    streaming.shape = LinkShape(1e-3, 0.01)
    streaming.receive_edge(PayloadAppended(encode_block(BlockKind.KV, 1, 0, 1, bytes(100))))
    streaming.run(15.0)
    assert streaming.edge.state is EdgeState.SUSPENDED
    answering = SimulatedLink(LinkShape(1e6, 0.01))
    answering.reconnect_after_s = 1e9
    answering.start()
    answering.receive_edge(PayloadEnded())
    answering.run(0.06)
    assert answering.edge.state is EdgeState.ANSWERING
    answering.shape = LinkShape(1e6, 1e9)
    answering.run(5.1)
    assert answering.edge.state is EdgeState.SUSPENDED


def test_living_but_slow_cloud_is_not_taken_for_a_dead_path() -> None:
    link = SimulatedLink(LinkShape(1e6, 0.01))
    link.start()
    link.run(40.0)  # the edge computes; only repeated acks cross the link
    assert link.edge.state is EdgeState.STREAMING
    link.receive_edge(PayloadEnded())
    link.run(45.0)
    assert link.complete is not None


def test_slow_uplink_is_not_taken_for_a_dead_path() -> None:
    link = SimulatedLink(LinkShape(0.1e6 / 8, 0.05), answer=ANSWER)
    link.start()
    for index in range(4):
        link.receive_edge(PayloadAppended(encode_block(BlockKind.KV, 1, index, 1, bytes(100_000))))
    link.receive_edge(PayloadEnded())
    link.run(60.0)
    assert link.complete is not None
    assert link.commits == 1


def test_path_that_stays_dead_fails_after_the_resume_window_and_leaves_nothing() -> None:
    link = stalled()
    link.reconnect_after_s = 1e9
    link.at(1.0, link.break_link)
    link.run(100.0)
    assert link.edge.state is EdgeState.FAILED
    assert isinstance(link.error, PeerUnavailableError)
    assert link.cloud.state is CloudState.DISCARDED
    assert (link.edge.held_bytes, link.cloud.waiting_bytes) == (0, 0)
    assert link.commits == 0


@pytest.mark.parametrize("at", [0.0, 0.005, 0.5, 3.0])
def test_cancel_at_any_moment_frees_the_cloud_as_soon_as_it_arrives(at: float) -> None:
    link = stalled()
    link.run(0.1 + at)
    link.receive_edge(Cancel())
    # The 60 kB that may be ahead of it take 6 s on the 10 kB/s link.
    link.run(link.now + 6.1)
    assert link.edge.state is EdgeState.CANCELLED
    assert link.cloud.state is CloudState.DISCARDED
    assert link.edge.held_bytes == 0
    assert link.commits == 0


@pytest.mark.parametrize("at", [0.0, 0.005, 0.5, 3.0])
def test_cancel_that_gets_lost_with_the_stream_leaves_nothing_in_the_end(at: float) -> None:
    link = stalled()
    link.run(0.1 + at)
    link.receive_edge(Cancel())
    link.break_link()
    link.run(100.0)
    assert link.edge.state is EdgeState.CANCELLED
    assert link.cloud.state is CloudState.DISCARDED
    assert link.edge.held_bytes == 0
    assert link.commits == 0

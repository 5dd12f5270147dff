"""Values that the protocol's tests share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from scout_core.modes import AgentId, ContextHash, Mode, ModelFingerprint, SessionId
from scout_core.protocol.actions import PayloadSend, SendChunk
from scout_core.protocol.answer import AnswerSummary, AnswerToken, FinishReason
from scout_core.protocol.blocks import BlockKind, encode_block
from scout_core.protocol.checksum import PayloadDigest, chunk_checksum
from scout_core.protocol.edge_session import EdgeSession
from scout_core.protocol.events import Accepted, ChunkReceived, EdgeEvent, FinishReceived, Start
from scout_core.protocol.opening import ContextState, OpenParameters
from scout_core.protocol.payload_sender import SendPolicy

KIB = 1024
PARAMETERS = OpenParameters(
    session_id=SessionId("session-1"),
    agent_id=AgentId("agent-1"),
    model_fingerprint=ModelFingerprint("f" * 64),
    context_hash=ContextHash(b"h" * 32),
    context_tokens=170,
    question="Where is the key?",
    mode=Mode.SCOUT,
    retention=0.5,
    deadline_s=2.0,
    round_trip_s=0.02,
)
OTHER_PARAMETERS = replace(PARAMETERS, question="Who has the key?")

BLOCK = encode_block(BlockKind.TOKENS, 0, 0, 170, b"packed token ids")
TOKEN = AnswerToken("Under", 7)
EMPTY_ANSWER = AnswerSummary(FinishReason.END_OF_TEXT, 0)
ONE_TOKEN_ANSWER = AnswerSummary(FinishReason.END_OF_TEXT, 1)


def chunk(offset: int, data: bytes) -> ChunkReceived:
    """A chunk with the right checksum."""
    return ChunkReceived(offset, data, chunk_checksum(data))


def finish(*chunks: bytes) -> FinishReceived:
    """The finish that belongs to a payload sent in these chunks."""
    digest = PayloadDigest()
    end = 0
    for data in filter(len, chunks):
        end += len(data)
        digest.add(end, chunk_checksum(data))
    return FinishReceived(end, digest.digest())


class PumpedEdge(EdgeSession):
    """A session whose stream takes everything at once: what is due follows each event."""

    def receive(self, event: EdgeEvent, now: float) -> tuple[Any, ...]:
        actions = super().receive(event, now)
        return (*actions, *self._pulled(now))

    def tick(self, now: float) -> tuple[Any, ...]:
        actions = super().tick(now)
        return (*actions, *self._pulled(now))

    def _pulled(self, now: float) -> Iterator[PayloadSend]:
        while (message := self.next_send(now)) is not None:
            yield message


def accepted(credit_bytes: int, resume_offset: int = 0) -> Accepted:
    """The session exists at the cloud."""
    return Accepted(ContextState.ABSENT, resume_offset, credit_bytes, 0.25)


def started(initial_credit_bytes: int = 0, chunk_bytes: int = 256 * KIB) -> PumpedEdge:
    """An edge that has sent its open."""
    session = PumpedEdge(SendPolicy(chunk_bytes, initial_credit_bytes))
    session.receive(Start(PARAMETERS), 0.0)
    return session


def streaming(credit_bytes: int, chunk_bytes: int = 256 * KIB) -> PumpedEdge:
    """An edge that may send so much."""
    session = started(chunk_bytes=chunk_bytes)
    session.receive(accepted(credit_bytes), 0.0)
    return session


def ranges(actions: Iterable[object]) -> list[tuple[int, int]]:
    """Start and end of every chunk among the actions."""
    return [
        (action.offset, action.offset + len(action.data))
        for action in actions
        if isinstance(action, SendChunk)
    ]

"""What a session asks its daemon to do: the actions of both machines, in the order to do them.

This module owns no behaviour. ``Send*`` actions are messages for the peer; the others are for the
daemon itself. The edge's payload is not among the actions: it is pulled.
"""

from __future__ import annotations

from dataclasses import dataclass

from scout_core.errors import ScoutError
from scout_core.modes import Mode
from scout_core.protocol.answer import AnswerSummary, AnswerToken
from scout_core.protocol.blocks import Block
from scout_core.protocol.opening import ContextState, OpenParameters, UplinkShare

# --- edge --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SendOpen:
    """Open or resume; ``parameters.deadline_s`` is what is left of the deadline now."""

    parameters: OpenParameters


@dataclass(frozen=True, slots=True)
class SendChunk:
    """A piece of the payload; ``checksum`` is xxh3-64 of ``data``, which may be a view."""

    offset: int
    data: bytes | memoryview
    checksum: int


@dataclass(frozen=True, slots=True)
class SendSwitch:
    """Blocks from ``offset`` on are coded in another mode."""

    mode: Mode
    retention: float
    offset: int
    cause: str


@dataclass(frozen=True, slots=True)
class SendFinish:
    """The payload is complete; ``digest`` is that of its chunks (see ``PayloadDigest``)."""

    total_bytes: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class SendCancel:
    """Nobody wants the answer any more: the cloud need not keep the session for a resume."""


@dataclass(frozen=True, slots=True)
class SessionAccepted:
    """The cloud admitted (or re-admitted) the session; tells the daemon what the cloud holds, and
    what its scheduler asks for."""

    context_state: ContextState
    queue_s: float
    resumed: bool
    share: UplinkShare | None = None


@dataclass(frozen=True, slots=True)
class DeliverToken:
    """Hand a new answer token to the application; never the same one twice."""

    token: AnswerToken
    index: int


@dataclass(frozen=True, slots=True)
class Complete:
    """The answer is complete. Last action; close the stream."""

    summary: AnswerSummary


@dataclass(frozen=True, slots=True)
class Reconnect:
    """Tear the stream down if it still stands, connect again, then feed ``Reconnected``.

    At ``until_s`` (the clock of ``now``) the machine gives up by itself.
    """

    until_s: float
    cause: ScoutError


# --- cloud -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SendAccepted:
    """First message of a stream."""

    context_state: ContextState
    resume_offset: int
    credit_bytes: int
    queue_s: float
    share: UplinkShare | None = None


@dataclass(frozen=True, slots=True)
class SendCredit:
    """The edge may have sent ``credit_bytes`` in total."""

    credit_bytes: int


@dataclass(frozen=True, slots=True)
class SendAck:
    """``received_bytes`` arrived without a gap, the last of them at ``arrival_us``."""

    received_bytes: int
    arrival_us: int


@dataclass(frozen=True, slots=True)
class DeliverBlock:
    """A complete block, in stream order. Not committed yet."""

    block: Block


@dataclass(frozen=True, slots=True)
class ApplySwitch:
    """Blocks delivered after this action are coded in another mode."""

    mode: Mode
    retention: float
    offset: int
    cause: str


@dataclass(frozen=True, slots=True)
class CommitPayload:
    """Every block was delivered and the digest agrees: answer now."""

    total_bytes: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class SendToken:
    """A piece of the answer."""

    token: AnswerToken


@dataclass(frozen=True, slots=True)
class SendDone:
    """The answer is complete; end the stream with OK."""

    summary: AnswerSummary


@dataclass(frozen=True, slots=True)
class Discard:
    """Forget the session and free what was delivered. Last action."""


# --- both --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fail:
    """The session failed; end the stream with the status of ``error``."""

    error: ScoutError


PayloadSend = SendChunk | SendSwitch | SendFinish
"""What ``EdgeSession.next_send`` gives, one at a time, when the stream can take it."""
EdgeAction = SendOpen | SendCancel | SessionAccepted | DeliverToken | Complete | Reconnect | Fail
CloudAction = (
    SendAccepted
    | SendCredit
    | SendAck
    | DeliverBlock
    | ApplySwitch
    | CommitPayload
    | SendToken
    | SendDone
    | Fail
    | Discard
)

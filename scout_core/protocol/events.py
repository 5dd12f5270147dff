"""What happens to a session: the events of both machines.

*Local* events come from the daemon that runs the machine, *peer* events from the other end of the
stream. The machines tell them apart to raise the right error (``LOCAL_EVENTS``). This module owns
no behaviour and knows no protobuf; times are in seconds, offsets in bytes of the payload stream.
"""

from __future__ import annotations

from dataclasses import dataclass

from scout_core.errors import ScoutError
from scout_core.modes import Mode
from scout_core.protocol.answer import AnswerSummary, AnswerToken
from scout_core.protocol.opening import ContextState, OpenParameters, UplinkShare

# --- edge: local -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    """A stream to the cloud stands; open the session on it."""

    parameters: OpenParameters


@dataclass(frozen=True, slots=True)
class PayloadAppended:
    """More of the payload: one or more *whole* encoded blocks. The machine keeps a reference."""

    data: bytes


@dataclass(frozen=True, slots=True)
class PayloadEnded:
    """Nothing more will be appended (unless a switch re-opens the payload)."""


@dataclass(frozen=True, slots=True)
class ModeSwitched:
    """Blocks from ``offset`` on are coded in another mode.

    ``offset`` None means the end of what was appended. A smaller offset withdraws appended data
    that was never sent; it must be ``EdgeSession.earliest_switch_offset`` or a later boundary
    between two appends. A switch re-opens a payload that had ended.
    """

    mode: Mode
    retention: float
    cause: str
    offset: int | None = None


@dataclass(frozen=True, slots=True)
class Reconnected:
    """A new stream stands after ``Reconnect`` was asked for."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """The application does not want the answer any more."""


# --- both --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ConnectionLost:
    """The current stream broke. Events of a superseded stream must not be fed in."""

    error: ScoutError


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """The peer ended its half without an error. To a receiver a cancel looks the same."""


# --- edge: from the cloud ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Accepted:
    """The session exists at the cloud. ``credit_bytes`` is cumulative.

    ``share`` is None where the uplink is not scheduled.
    """

    context_state: ContextState
    resume_offset: int
    credit_bytes: int
    queue_s: float
    share: UplinkShare | None = None


@dataclass(frozen=True, slots=True)
class CreditGranted:
    """The edge may have sent ``credit_bytes`` in total."""

    credit_bytes: int


@dataclass(frozen=True, slots=True)
class Acked:
    """``received_bytes`` arrived without a gap; ``arrival_us`` is on the cloud's clock."""

    received_bytes: int
    arrival_us: int


@dataclass(frozen=True, slots=True)
class TokenReceived:
    """A piece of the answer."""

    token: AnswerToken


@dataclass(frozen=True, slots=True)
class AnswerDone:
    """The answer is complete."""

    summary: AnswerSummary


@dataclass(frozen=True, slots=True)
class PeerFailed:
    """The cloud ended the session with a status that retrying the stream cannot heal."""

    error: ScoutError


# --- cloud: from the edge ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OpenReceived:
    """A new session."""

    parameters: OpenParameters


@dataclass(frozen=True, slots=True)
class Resumed:
    """An open with the id of this session arrived on a new stream, which replaces the old one."""

    parameters: OpenParameters


@dataclass(frozen=True, slots=True)
class ChunkReceived:
    """A piece of the payload stream; ``checksum`` is xxh3-64 of ``data``, which may be a view."""

    offset: int
    data: bytes | memoryview
    checksum: int


@dataclass(frozen=True, slots=True)
class SwitchReceived:
    """Blocks from ``offset`` on are coded in another mode."""

    mode: Mode
    retention: float
    offset: int
    cause: str


@dataclass(frozen=True, slots=True)
class FinishReceived:
    """The payload has ``total_bytes``; ``digest`` is that of its chunks (see ``PayloadDigest``)."""

    total_bytes: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class CancelReceived:
    """The edge does not want the answer any more."""


# --- cloud: local ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AcceptDecided:
    """The daemon admits the session.

    ``rate_bytes_per_s`` paces the credit (an allocation of the uplink); None: the window alone, 0:
    no credit until a rate is allocated. ``share`` is what the edge is told of the allocation.
    """

    context_state: ContextState
    queue_s: float = 0.0
    rate_bytes_per_s: float | None = None
    share: UplinkShare | None = None


@dataclass(frozen=True, slots=True)
class RateAllocated:
    """The uplink's allocation changed; 0 withholds credit, None lifts the pacing.

    ``releases``: at 0 what has gathered is given out at once; else it waits for another rate.
    """

    rate_bytes_per_s: float | None
    releases: bool = True


@dataclass(frozen=True, slots=True)
class PayloadConsumed:
    """The daemon is done with every block that ends at or before ``offset``.

    Credit waits for it once too much was delivered and not consumed.
    """

    offset: int


@dataclass(frozen=True, slots=True)
class TokenProduced:
    """The worker decoded a token."""

    token: AnswerToken


@dataclass(frozen=True, slots=True)
class AnswerFinished:
    """The worker is done."""

    summary: AnswerSummary


@dataclass(frozen=True, slots=True)
class Abort:
    """The daemon gives the session up (bad payload, overload, drain, a failed worker)."""

    error: ScoutError


# --- edge: the stream ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FinishPulled:
    """Whoever writes to the stream took the finish. Only ``next_send`` makes it; ``receive`` does
    not take it."""


# --- both: time --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TimerExpired:
    """A deadline of the machine passed. Only ``tick`` makes it; ``receive`` does not take it."""


EdgeLocalEvent = (
    Start | PayloadAppended | PayloadEnded | ModeSwitched | ConnectionLost | Reconnected | Cancel
)
EdgePeerEvent = (
    Accepted | CreditGranted | Acked | TokenReceived | AnswerDone | PeerFailed | StreamEnded
)
EdgeEvent = EdgeLocalEvent | EdgePeerEvent

CloudLocalEvent = (
    AcceptDecided
    | RateAllocated
    | PayloadConsumed
    | TokenProduced
    | AnswerFinished
    | ConnectionLost
    | Abort
)
CloudPeerEvent = (
    ChunkReceived  # most of what comes; a test for the union looks at it first
    | OpenReceived
    | Resumed
    | SwitchReceived
    | FinishReceived
    | CancelReceived
    | StreamEnded
)
CloudEvent = CloudLocalEvent | CloudPeerEvent

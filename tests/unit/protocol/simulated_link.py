"""Two linked session machines on a simulated link, in virtual time.

The uplink serialises messages at a set rate and delays them; the downlink only delays. Losing the
link drops whatever is on it, in both directions. No clock is read: an event heap is the time.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from protocol_examples import PARAMETERS, PumpedEdge

from scout_core.errors import PeerUnavailableError, ScoutError
from scout_core.protocol.actions import (
    ApplySwitch,
    CloudAction,
    CommitPayload,
    Complete,
    DeliverBlock,
    DeliverToken,
    Discard,
    EdgeAction,
    Fail,
    PayloadSend,
    Reconnect,
    SendAccepted,
    SendAck,
    SendCancel,
    SendChunk,
    SendCredit,
    SendDone,
    SendFinish,
    SendOpen,
    SendSwitch,
    SendToken,
    SessionAccepted,
)
from scout_core.protocol.answer import AnswerSummary, AnswerToken, FinishReason
from scout_core.protocol.blocks import Block
from scout_core.protocol.cloud_session import CloudSession
from scout_core.protocol.cloud_states import CloudState
from scout_core.protocol.events import (
    AcceptDecided,
    Accepted,
    Acked,
    AnswerDone,
    AnswerFinished,
    CancelReceived,
    ChunkReceived,
    CloudEvent,
    ConnectionLost,
    CreditGranted,
    EdgeEvent,
    FinishReceived,
    OpenReceived,
    PayloadConsumed,
    PeerFailed,
    Reconnected,
    Resumed,
    Start,
    SwitchReceived,
    TokenProduced,
    TokenReceived,
)
from scout_core.protocol.opening import ContextState

MESSAGE_OVERHEAD_BYTES = 40


@dataclass(frozen=True)
class LinkShape:
    """``delivery_grid_s`` > 0 rounds arrivals up to a grid, as an emulator's ticks do."""

    rate_bytes_per_s: float
    one_way_s: float
    delivery_grid_s: float = 0.0


class SimulatedLink:
    """Runs both machines; tests script the application through ``at`` and ``receive_edge``."""

    def __init__(
        self,
        shape: LinkShape,
        edge: PumpedEdge | None = None,
        cloud: CloudSession | None = None,
        *,
        answer: tuple[AnswerToken, ...] = (),
        rate_bytes_per_s: float | None = None,
    ) -> None:
        self.shape = shape
        self.edge = edge or PumpedEdge()
        self.cloud = cloud or CloudSession()
        self.now = 0.0
        self.blocks: list[Block] = []
        self.switches: list[ApplySwitch] = []
        self.tokens: list[AnswerToken] = []
        self.complete: AnswerSummary | None = None
        self.error: ScoutError | None = None
        self.commits = 0
        self.discarded = False
        self.max_backlog_bytes = 0
        self.reconnect_after_s = 0.05
        self.consume_after_s: float | None = 0.0
        self.on_idle_edge: Callable[[], None] = lambda: None
        self._answer = answer
        self._rate_bytes_per_s = rate_bytes_per_s
        self._generation = 0
        self._cloud_generation = 0
        self._uplink_free_at = 0.0
        self._order = itertools.count()
        self._heap: list[tuple[float, int, Callable[[], None]]] = []

    def at(self, time_s: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (time_s, next(self._order), call))

    def start(self) -> None:
        self.receive_edge(Start(PARAMETERS))

    def run(self, until_s: float) -> None:
        """Runs messages and timers in order of time."""
        while True:
            timer = self._next_timer()
            due = self._heap[0][0] if self._heap else None
            next_at = min((t for t in (timer, due) if t is not None), default=None)
            if next_at is None or next_at > until_s:
                self.now = until_s
                return
            self.now = max(self.now, next_at)
            if due is not None and due <= next_at:
                heapq.heappop(self._heap)[2]()
            else:
                self._perform_edge(self.edge.tick(self.now))
                self._perform_cloud(self.cloud.tick(self.now))

    def receive_edge(self, event: EdgeEvent) -> None:
        self._perform_edge(self.edge.receive(event, self.now))

    def receive_cloud(self, event: CloudEvent) -> None:
        self._perform_cloud(self.cloud.receive(event, self.now))

    def break_link(self, *, cloud_notices_after_s: float | None = 0.0) -> None:
        """Drops what is under way; None: the cloud never notices by itself."""
        self._generation += 1
        self._uplink_free_at = self.now
        lost = ConnectionLost(PeerUnavailableError("The link broke."))
        self.receive_edge(lost)
        generation = self._generation
        if cloud_notices_after_s is None:
            return

        def cloud_loses() -> None:
            # A new stream may have taken over; before Open the cloud has no session at all.
            if generation == self._generation and self.cloud.state is not CloudState.IDLE:
                self.receive_cloud(lost)

        self.at(self.now + cloud_notices_after_s, cloud_loses)

    def _next_timer(self) -> float | None:
        deadlines = (self.edge.next_deadline(), self.cloud.next_deadline(self.now))
        return min((at for at in deadlines if at is not None), default=None)

    def _reconnect(self) -> None:
        self._generation += 1
        self._uplink_free_at = self.now
        self.receive_edge(Reconnected())

    def _send_up(self, event: CloudEvent, size_bytes: int) -> None:
        start = max(self.now, self._uplink_free_at)
        self._uplink_free_at = start + size_bytes / self.shape.rate_bytes_per_s
        arrival = self._uplink_free_at + self.shape.one_way_s
        grid = self.shape.delivery_grid_s
        if grid > 0.0:
            arrival = -(-arrival // grid) * grid
        generation = self._generation

        def arrive() -> None:
            if isinstance(event, OpenReceived | Resumed):
                self._cloud_generation = generation  # the cloud answers on this stream from now on
            self.receive_cloud(event)

        self._deliver(arrival, generation, arrive)

    def _send_down(self, event: EdgeEvent) -> None:
        arrival = self.now + self.shape.one_way_s
        self._deliver(arrival, self._cloud_generation, lambda: self.receive_edge(event))

    def _deliver(self, arrival: float, generation: int, call: Callable[[], None]) -> None:
        def arrive() -> None:
            if generation == self._generation:
                call()

        self.at(arrival, arrive)

    def _perform_edge(self, actions: tuple[EdgeAction | PayloadSend, ...]) -> None:
        for action in actions:
            match action:
                case SendOpen():
                    known = self.cloud.state is not CloudState.IDLE
                    opening = Resumed if known else OpenReceived
                    self._send_up(opening(action.parameters), 500)
                case SendChunk():
                    self._send_up(
                        ChunkReceived(action.offset, action.data, action.checksum),
                        len(action.data) + MESSAGE_OVERHEAD_BYTES,
                    )
                case SendSwitch() | SendFinish() | SendCancel():
                    self._send_up(cloud_event(action), MESSAGE_OVERHEAD_BYTES)
                case DeliverToken():
                    assert action.index == len(self.tokens)
                    self.tokens.append(action.token)
                case Complete():
                    self.complete = action.summary
                case Reconnect():
                    self._generation += 1
                    self.at(self.now + self.reconnect_after_s, self._reconnect_if_wanted)
                case Fail():
                    self.error = action.error
                case SessionAccepted():
                    pass
                case _:
                    assert_never(action)
        self.max_backlog_bytes = max(self.max_backlog_bytes, self.edge.unacked_bytes)
        if actions or self.edge.unsent_bytes == 0:
            self.on_idle_edge()

    def _reconnect_if_wanted(self) -> None:
        if self.edge.state.name == "SUSPENDED":
            self._reconnect()

    def _perform_cloud(self, actions: tuple[CloudAction, ...]) -> None:
        for action in actions:
            match action:
                case DeliverBlock():
                    self.blocks.append(action.block)
                    self._consume(action.block)
                case ApplySwitch():
                    self.switches.append(action)
                case CommitPayload():
                    self.commits += 1
                    self._schedule_answer()
                case Discard():
                    self.discarded = True
                case _:
                    self._send_down(edge_event(action))
        if self.cloud.state is CloudState.DECIDING:
            self.receive_cloud(
                AcceptDecided(ContextState.ABSENT, rate_bytes_per_s=self._rate_bytes_per_s)
            )

    def _consume(self, block: Block) -> None:
        """After ``consume_after_s``; None: the worker is stuck."""
        if self.consume_after_s is not None:
            consumed = PayloadConsumed(block.end_offset)
            self.at(self.now + self.consume_after_s, lambda: self.receive_cloud(consumed))

    def _schedule_answer(self) -> None:
        """The worker: one token every 60 ms, whether or not anybody listens."""
        at = self.now + 0.1
        for token in self._answer:
            self.at(at, lambda token=token: self.receive_cloud(TokenProduced(token)))
            at += 0.06
        summary = AnswerSummary(FinishReason.END_OF_TEXT, len(self._answer))
        self.at(at, lambda: self.receive_cloud(AnswerFinished(summary)))


def cloud_event(action: SendSwitch | SendFinish | SendCancel) -> CloudEvent:
    """What the cloud receives when the edge sends something small."""
    match action:
        case SendSwitch():
            return SwitchReceived(action.mode, action.retention, action.offset, action.cause)
        case SendFinish():
            return FinishReceived(action.total_bytes, action.digest)
        case SendCancel():
            return CancelReceived()
        case _:
            assert_never(action)


def edge_event(
    action: SendAccepted | SendCredit | SendAck | SendToken | SendDone | Fail,
) -> EdgeEvent:
    """What the edge receives when the cloud sends."""
    match action:
        case SendAccepted():
            return Accepted(
                action.context_state, action.resume_offset, action.credit_bytes, action.queue_s
            )
        case SendCredit():
            return CreditGranted(action.credit_bytes)
        case SendAck():
            return Acked(action.received_bytes, action.arrival_us)
        case SendToken():
            return TokenReceived(action.token)
        case SendDone():
            return AnswerDone(action.summary)
        case Fail():
            return PeerFailed(action.error)
        case _:
            assert_never(action)

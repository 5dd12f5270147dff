"""The cloud's end of the payload: chunks in, blocks and switches out in stream order, acks back.

This module joins reassembly, the block parser, the credit window and the switches. It does not
know the session's states; ``cloud_session`` decides when its output may be delivered or sent.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from scout_core.errors import DigestMismatchError, LocalProtocolError, RemoteProtocolError
from scout_core.protocol.actions import ApplySwitch, CloudAction, DeliverBlock, SendAck, SendCredit
from scout_core.protocol.blocks import Block, BlockLimits, BlockParser
from scout_core.protocol.credit import CreditPolicy, CreditWindow
from scout_core.protocol.events import ChunkReceived, FinishReceived, SwitchReceived
from scout_core.protocol.reassembly import Reassembler

ACK_INTERVAL_S = 0.01
"""Acks wait for a quantum of bytes, but never longer than this."""
MAX_SWITCHES = 256
_MICROSECONDS = 1_000_000


@dataclass(frozen=True, slots=True)
class ReceivePolicy:
    """What a cloud takes from one session."""

    credit: CreditPolicy = field(default_factory=CreditPolicy)
    limits: BlockLimits = field(default_factory=BlockLimits)
    unconsumed_bytes: int = 16 << 20
    """No credit is granted while more than this was delivered and is not consumed."""


class PayloadReceiver:
    """One payload on its way in."""

    def __init__(self, policy: ReceivePolicy, round_trip_s: float) -> None:
        self._reassembler = Reassembler()
        self._parser = BlockParser(policy.limits)
        self._window = CreditWindow(policy.credit, round_trip_s)
        self._unconsumed_limit = policy.unconsumed_bytes
        self._consumed = 0
        self._switches: list[SwitchReceived] = []
        self._switches_applied = 0
        self._acked = 0
        self._acked_at = float("-inf")
        self._arrived_at = 0.0

    @property
    def received(self) -> int:
        """Bytes received without a gap."""
        return self._reassembler.received

    @property
    def waiting_bytes(self) -> int:
        """Bytes kept behind a gap."""
        return self._reassembler.waiting_bytes

    @property
    def switches(self) -> tuple[SwitchReceived, ...]:
        """All switches announced so far, in stream order; one is known before a byte it describes
        is counted as received."""
        return tuple(self._switches)

    @property
    def window(self) -> CreditWindow:
        """The credit rule, for its limit and goodput."""
        return self._window

    def chunk(self, event: ChunkReceived, now: float) -> list[CloudAction]:
        """Takes a chunk; returns the blocks it completes and the switches due before them.

        Raises:
            CreditExceededError, ChunkError, PayloadError: see ``CreditWindow.check``,
                ``Reassembler.add`` and ``BlockParser.feed``.
            RemoteProtocolError: a switch is due inside a block.
        """
        self._window.check(event.offset + len(event.data))
        deliveries: list[CloudAction] = []
        for piece in self._reassembler.add(event.offset, event.data, event.checksum):
            for block in self._parser.feed(piece):
                if self._switches_applied < len(self._switches):
                    deliveries += self._switches_before(block)
                deliveries.append(DeliverBlock(block))
        self._arrived_at = now
        self._window.arrived(self._reassembler.received, now)
        return deliveries

    def switch(self, event: SwitchReceived) -> None:
        """Notes a switch; one that is known already (sent again after a resume) is ignored.

        Raises:
            RemoteProtocolError: it comes after bytes it describes, out of order, or is one too
                many.
        """
        if event in self._switches:
            return
        floor = max(self.received, self._switches[-1].offset if self._switches else 0)
        if event.offset < floor:
            raise RemoteProtocolError(
                f"A switch at {event.offset} came too late; {floor} is the earliest possible."
            )
        if len(self._switches) >= MAX_SWITCHES:
            raise RemoteProtocolError(f"More than {MAX_SWITCHES} switches in one session.")
        self._switches.append(event)

    def finish(self, event: FinishReceived) -> list[CloudAction]:
        """Checks that the payload is whole; returns the switches due at its very end.

        Raises:
            DigestMismatchError: total or digest differ from what arrived.
            PayloadError: the payload ends inside a block.
            RemoteProtocolError: a switch lies beyond the end.
        """
        received = self._reassembler.received
        if event.total_bytes != received or event.digest != self._reassembler.digest():
            raise DigestMismatchError(
                f"Finish announces {event.total_bytes} bytes with a digest that is not that of "
                f"the {received} bytes received; send the payload again.",
                total_bytes=event.total_bytes,
                received_bytes=received,
            )
        self._parser.expect_end()
        due = self._due_switches(received)
        if self._switches_applied < len(self._switches):
            raise RemoteProtocolError("A switch lies beyond the end of the payload.")
        return due

    def consumed(self, offset: int) -> bool:
        """Notes that the blocks up to ``offset`` need no memory here any more; returns whether
        credit waited for that.

        Raises:
            LocalProtocolError: it goes backwards or beyond what was delivered.
        """
        if not self._consumed <= offset <= self._parser.boundary:
            raise LocalProtocolError(
                f"Consumed {offset} is outside {self._consumed}..{self._parser.boundary}."
            )
        credit_waited = self._is_overfull()
        self._consumed = offset
        return credit_waited

    def grant(self, now: float) -> int:
        """The cumulative credit to announce now."""
        return self._window.limit if self._is_overfull() else self._window.grant(now)

    def acknowledge(self, now: float, *, at_once: bool = False) -> list[CloudAction]:
        """Acks and credit that are due; an ack always precedes the credit it makes room for.

        So the sender's backlog never exceeds the window, whatever the order of grants.
        """
        window = self._window
        before = window.limit
        limit = before if self._is_overfull() else window.grant(now)
        unacked = self._reassembler.received - self._acked
        actions: list[CloudAction] = []
        if unacked and (
            at_once
            or limit > before
            or unacked >= window.quantum_bytes
            or now >= self._acked_at + ACK_INTERVAL_S
        ):
            actions.append(self.ack(now))
        if limit > before:
            actions.append(SendCredit(limit))
        return actions

    def ack(self, now: float) -> SendAck:
        """An ack now, news or not."""
        self._acked = self._reassembler.received
        self._acked_at = now
        return SendAck(self._acked, int(self._arrived_at * _MICROSECONDS))

    def next_deadline(self, now: float) -> float | None:
        """When ``acknowledge`` has something to say without another chunk."""
        paced = self._window.is_paced and not self._is_overfull()
        grant_at = self._window.next_grant_at(now) if paced else None
        if self._reassembler.received == self._acked:
            return grant_at
        ack_at = self._acked_at + ACK_INTERVAL_S
        return ack_at if grant_at is None else min(ack_at, grant_at)

    def resume(self) -> None:
        """A new stream takes over at ``received``."""
        self._reassembler.drop_waiting()
        self._window.restart()
        self._acked = self._reassembler.received

    def _is_overfull(self) -> bool:
        """Whole blocks alone count: the rest of a block that has begun must be let in."""
        return self._parser.boundary - self._consumed > self._unconsumed_limit

    def _next_switch_offset(self) -> float:
        if self._switches_applied == len(self._switches):
            return float("inf")
        return self._switches[self._switches_applied].offset

    def _switches_before(self, block: Block) -> list[CloudAction]:
        """Raises:
        RemoteProtocolError: one is due inside the block.
        """
        due = self._due_switches(block.start_offset)
        if self._next_switch_offset() < block.end_offset:
            raise RemoteProtocolError(
                f"A switch at {self._next_switch_offset()} is inside the block "
                f"{block.start_offset}..{block.end_offset}; switch between blocks."
            )
        return due

    def _due_switches(self, offset: int) -> list[CloudAction]:
        due: list[CloudAction] = []
        while self._next_switch_offset() <= offset:
            switch = self._switches[self._switches_applied]
            self._switches_applied += 1
            due.append(ApplySwitch(switch.mode, switch.retention, switch.offset, switch.cause))
        return due

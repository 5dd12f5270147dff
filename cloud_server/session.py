"""One session's pipeline in the server: the payload it takes, the answer it makes.

What the protocol wants is ``scout_core.rpc.session_server``'s; this module knows the model's host
and turns delivered blocks into an answer.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import structlog

from cloud_server.answering import Answering
from cloud_server.assembly import PayloadAssembler
from cloud_server.host import ModelHost, Reservation
from cloud_server.tracking import SessionTracking
from scout_core.errors import ScoutError
from scout_core.protocol import actions, events
from scout_core.protocol.answer import AnswerSummary
from scout_core.protocol.blocks import Block
from scout_core.protocol.cloud_session import CloudSession
from scout_core.protocol.opening import CAUSE_ALLOCATION, OpenParameters
from scout_core.rpc.session_server import ServedSession

log = structlog.get_logger("scout.cloud.session")


class LiveSession:
    """Runs one session and its pipeline until the session is discarded."""

    def __init__(
        self,
        host: ModelHost,
        machine: CloudSession,
        parameters: OpenParameters,
        reservation: Reservation,
        tracking: SessionTracking,
    ) -> None:
        self.served = ServedSession(machine, parameters, self)
        self._machine = machine
        self._host = host
        self._parameters = parameters
        self._reservation = reservation
        self._assembler = PayloadAssembler(host, parameters, tracking.tenant)
        self._tracking = tracking
        self._switches: list[str] = []
        self._answering: asyncio.Task[None] | None = None

    @property
    def received_bytes(self) -> int:
        """Payload received without a gap."""
        return self._machine.received_bytes

    @property
    def credit_bytes(self) -> int:
        """Payload that the edge may have sent in all."""
        return self._machine.credit_bytes

    def promised_bytes(self, now: float) -> int:
        """Payload that the edge may have sent in all once its pacing is stopped."""
        return self._machine.promised_bytes(now)

    @property
    def is_suspended(self) -> bool:
        """Whether it waits for another stream."""
        return self._machine.is_suspended

    @property
    def switches(self) -> tuple[events.SwitchReceived, ...]:
        """The switches announced so far; none is missing of the bytes received."""
        return self._machine.switches

    def post(self, event: events.CloudEvent) -> None:
        """Hands the session an event of this server."""
        self.served.post(event)

    async def run(self) -> None:
        """Returns when nothing of the session is left."""
        try:
            await self.served.run()
        finally:
            if self._answering is not None:
                self._answering.cancel()
                await asyncio.gather(self._answering, return_exceptions=True)
            self._reservation.release()
            self._tracking.ended(self.served.failure)

    async def take_block(self, block: Block) -> None:
        """Decodes and injects it; until then it counts as not consumed."""
        await self._assembler.add(block)

    def note_switch(self, switch: actions.ApplySwitch) -> None:
        way = f"{switch.mode.value}@{switch.retention:g}"
        note = f"{way} from byte {switch.offset} ({switch.cause})"
        if switch.offset == 0:
            opened, share = self._assembler.parameters, self.served.share
            asked = share is not None and share.mode is switch.mode
            if switch.cause == CAUSE_ALLOCATION:
                before = f"{opened.mode.value}@{opened.retention:g}"
                note = f"the cloud's scheduler asked for {way} instead of {before}"
            self._assembler.parameters = replace(
                opened,
                mode=switch.mode,
                retention=switch.retention,
                execution=share.execution if share and asked else opened.execution,
            )
        self._switches.append(note)
        self._tracking.switched(switch)

    def note_suspended(self) -> None:
        self._tracking.suspended()

    def commit(self) -> None:
        self._tracking.payload_complete()
        self._answering = asyncio.create_task(self._answer())

    async def _answer(self) -> None:
        try:
            await self._answer_or_raise()
            # The kept answer is a few hundred bytes; its place is free for another request.
            self._reservation.release()
        except ScoutError as error:
            self.served.post(events.Abort(error))
        except Exception:  # a bug ends the session with a status, not in silence
            log.exception("session_crashed", session=self._parameters.session_id)
            self.served.post(events.Abort(ScoutError("Internal error: see the server's log.")))

    async def _answer_or_raise(self) -> None:
        assembler = self._assembler
        queue_s = self._host.worker.queue_s
        prepared = await assembler.prepare()
        kept_tokens = prepared.cache.length - len(self._host.engine.prompt.head_tokens)
        answering = Answering(
            self._host, prepared.cache, self._parameters.question, self._parameters.sampling
        )
        async for token in answering.tokens():
            if answering.answer_tokens == 1:
                self._tracking.first_token()
            self.served.post(events.TokenProduced(token))
        summary = AnswerSummary(
            finish_reason=answering.finish_reason,
            answer_tokens=answering.answer_tokens,
            inject_s=assembler.inject_s,
            prefill_s=assembler.prefill_s + answering.first_step_s,
            queue_s=queue_s,
            decode_s=answering.decode_s,
            uplink_bytes=self.served.uplink_bytes,
            execution=prepared.execution,
            numerics=f"cloud computes in {self._host.engine.compute_dtype}",
            degradation="; ".join([*self._switches, prepared.degradation]).strip("; "),
            context_tokens=assembler.parameters.context_tokens,
            kept_tokens=kept_tokens,
        )
        self.served.post(events.AnswerFinished(summary))
        self._tracking.answer_complete()

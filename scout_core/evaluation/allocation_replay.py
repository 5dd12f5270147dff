"""One edge agent that replays a recording, as a process: control stream, sessions, no model.

Run as ``python -m scout_core.evaluation.allocation_replay``: reads one JSON line with a
``ReplayScript`` on standard input, attaches, says so, plays the requests at their instants of the
monotonic clock, which all processes of a host share, and prints the outcomes as one JSON line. It
follows the cloud's recommendations as the edge agent does: the acceptance says what to begin with,
a grant on the control stream what the next block is coded in.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Final

import structlog
import uvloop
from scout.v1 import control_pb2

from scout_core.control.estimator import GoodputEstimator
from scout_core.errors import ScoutError
from scout_core.evaluation.allocation_recording import Recording
from scout_core.modes import AgentId, Mode, ModelFingerprint, SessionId
from scout_core.protocol import actions, events
from scout_core.protocol.checksum import chunk_checksum
from scout_core.protocol.edge_session import EdgeTimeouts
from scout_core.protocol.opening import CAUSE_ALLOCATION, Offer, OpenParameters
from scout_core.protocol.payload_sender import SendPolicy
from scout_core.rpc.bounded_queue import StreamEnded
from scout_core.rpc.channel import open_channel
from scout_core.rpc.handlers import ATTACH_METHOD, SESSION_METHOD
from scout_core.rpc.messages import MODE_FROM_WIRE, MODE_TO_WIRE, decode
from scout_core.rpc.options import (
    MAX_CHUNK_BYTES,
    MAX_MESSAGE_BYTES,
    ChannelRole,
    largest_chunk_bytes,
)
from scout_core.rpc.session_client import Outcome, SessionClient, SessionOptions
from scout_core.rpc.session_wire import decode_cloud, encode_edge
from scout_core.rpc.stream import StreamWriter, read_stream
from scout_core.rpc.tenancy import DEFAULT_TENANT, tenant_metadata
from scout_core.sampling import SamplingOptions
from scout_core.version import VERSION

LOOKAHEAD_BYTES: Final = 0
"""As the edge's default: a recommendation is followed with the next block."""
FLOOD_S: Final = 3.0
SURGE_BYTES: Final = 512 * 1024
AHEAD_BYTES: Final = 1024 * 1024
"""Beyond its credit, and still so when it arrives: credit grows meanwhile."""


class Conduct(Enum):
    """How an agent behaves."""

    HONEST = "honest"
    IDLE = "idle"
    """Attached, asks nothing: what the others do without it."""
    LEAVES = "leaves"
    """Opens a session and gives it up as soon as it has credit: it claims what the two below claim
    until they are found out."""
    FLOODS = "floods"
    """Opens a session and sends chunk after chunk without credit."""
    SURGES = "surges"
    """Opens a session and, with its first credit, sends one message far beyond it."""
    OVERDRAWS = "overdraws"
    """The same with a message that is as large as is taken."""
    POURS = "pours"
    """The same again and again."""
    LIES = "lies"
    """Declares its token ids and sends its whole KV."""


@dataclass(frozen=True, slots=True)
class ReplayScript:
    """What one agent does.

    Attributes:
        address: the cloud's, through the link; recording: folder of the recording.
        begins_s: when each request is asked, on ``time.monotonic``.
        deadline_s: of every request.
    """

    agent: str
    group: str
    address: str
    recording: str
    begins_s: tuple[float, ...]
    deadline_s: float
    round_trip_s: float
    conduct: str = Conduct.HONEST.value
    only: str = ""
    """The one mode that it offers; empty: all."""
    chunk_bytes: int = 16 * 1024
    """Of payload, at most, and no more than the cloud takes; one that floods sends as much at
    once."""


@dataclass(slots=True)
class ReplayOutcome:
    """One request; times in seconds since it was asked, infinite if it never happened."""

    round: int
    first_token_s: float = float("inf")
    delivered_s: float = float("inf")
    payload_bytes: int = 0
    mode: str = ""
    """The last."""
    parts: dict[str, float] = field(default_factory=dict[str, float])
    """How much of the context crossed in each mode."""
    error: str = ""


class ReplayAgent:
    """Plays one script; ``run`` once."""

    def __init__(self, script: ReplayScript) -> None:
        self._script = script
        self._recording = Recording.load(Path(script.recording))
        whole = b"".join(self._recording.blocks[Mode.KV_BF16])
        self._payload = whole * (2 + SURGE_BYTES // len(whole))
        """What misconduct sends: blocks that mean something, so that its credit is what ends it."""
        self._control = open_channel(script.address, ChannelRole.CONTROL)
        self._data = open_channel(script.address, ChannelRole.DATA)
        self._advised: dict[str, Mode] = {}
        self._chunk_bytes = script.chunk_bytes
        self._largest_bytes = MAX_CHUNK_BYTES
        """Of data, in one message that the cloud takes."""

    async def run(self) -> None:
        """Prints what it has to say."""
        call = self._control.stream_stream(
            ATTACH_METHOD, request_serializer=None, response_deserializer=None
        )(metadata=tenant_metadata(DEFAULT_TENANT))
        interval_s = await self._register(call)
        tasks = (
            asyncio.create_task(self._beat(call, interval_s)),
            asyncio.create_task(self._listen(call)),
        )
        begins_s = await asyncio.to_thread(_begin, self._script.agent)
        asking = [
            asyncio.create_task(self._at(begin_s + begins_s, number))
            for number, begin_s in enumerate(self._script.begins_s)
        ]
        outcomes = await asyncio.gather(*asking)
        _say({"outcomes": [asdict(outcome) for outcome in outcomes]})
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        call.cancel()
        await self._control.close()
        await self._data.close()

    async def _register(self, call: Any) -> float:
        register = control_pb2.Register(
            agent_id=self._script.agent,
            version=VERSION,
            modes=[MODE_TO_WIRE[mode] for mode in self._recording.blocks],
            uplink_group=self._script.group,
        )
        await call.write(control_pb2.AttachRequest(register=register).SerializeToString())
        data = await call.read()
        response = decode(control_pb2.AttachResponse, data if isinstance(data, bytes) else b"")
        registered = response.registered
        taken_bytes = registered.largest_message_bytes or MAX_MESSAGE_BYTES
        self._largest_bytes = largest_chunk_bytes(taken_bytes)
        self._chunk_bytes = min(self._chunk_bytes, self._largest_bytes)
        return registered.heartbeat_interval.ToMilliseconds() / 1_000

    async def _beat(self, call: Any, interval_s: float) -> None:
        sequence = 0
        while True:
            await asyncio.sleep(interval_s)
            sequence += 1
            beat = control_pb2.Heartbeat(sequence=sequence)
            await call.write(control_pb2.AttachRequest(heartbeat=beat).SerializeToString())

    async def _listen(self, call: Any) -> None:
        while isinstance(data := await call.read(), bytes):
            response = decode(control_pb2.AttachResponse, data)
            mode = MODE_FROM_WIRE.get(response.grant.mode)
            if response.WhichOneof("event") == "grant" and mode is not None:
                self._advised[response.grant.session_id] = mode

    async def _at(self, begin_s: float, number: int) -> ReplayOutcome:
        await asyncio.sleep(max(begin_s - time.monotonic(), 0.0))
        match Conduct(self._script.conduct):
            case Conduct.HONEST:
                return await self._ask(number)
            case Conduct.IDLE:
                return ReplayOutcome(number)
            case Conduct.FLOODS:
                return await self._flood(number)
            case Conduct.LEAVES:
                return await self._spend(number, at_once_bytes=0)
            case Conduct.SURGES:
                return await self._spend(number, at_once_bytes=SURGE_BYTES)
            case Conduct.OVERDRAWS:
                return await self._spend(number, at_once_bytes=self._largest_bytes)
            case Conduct.POURS:
                return await self._spend(number, at_once_bytes=self._largest_bytes, again=True)
            case Conduct.LIES:
                return await self._ask(number, lies=True)

    async def _ask(self, number: int, *, lies: bool = False) -> ReplayOutcome:
        outcome, asked_s = ReplayOutcome(number), time.monotonic()
        parameters = self._parameters(lies=lies)
        accepted: asyncio.Future[Mode] = asyncio.get_running_loop().create_future()

        def note(news: Outcome) -> None:
            match news:
                case actions.SessionAccepted(_, _, _, share):
                    if not accepted.done():
                        accepted.set_result(share.mode if share else parameters.mode)
                case actions.DeliverToken():
                    elapsed_s = time.monotonic() - asked_s
                    outcome.first_token_s = min(outcome.first_token_s, elapsed_s)
                case actions.Complete():
                    pass

        client = SessionClient(self._data, _options(self._chunk_bytes), note, GoodputEstimator())
        payload = self._items(client, parameters, accepted, outcome, lies=lies)
        try:
            await client.run(parameters, payload)
        except ScoutError as error:
            outcome.error = error.reason
        outcome.payload_bytes = client.machine.acked_bytes
        if client.measurements.last_acked_s is not None and not outcome.error:
            outcome.delivered_s = client.measurements.last_acked_s - asked_s
        return outcome

    async def _items(
        self,
        client: SessionClient,
        parameters: OpenParameters,
        accepted: asyncio.Future[Mode],
        outcome: ReplayOutcome,
        *,
        lies: bool,
    ) -> AsyncIterator[bytes | events.ModeSwitched]:
        mode, recorded = parameters.mode, self._recording.blocks
        wanted, parts = await accepted, outcome.parts
        blocks = len(recorded[Mode.KV_BF16])
        for index in range(blocks):
            await client.credited()
            wanted = self._advised.get(parameters.session_id, wanted)
            if wanted is not mode and not lies:
                yield events.ModeSwitched(wanted, 1.0, CAUSE_ALLOCATION)
                mode = wanted
            outcome.mode = mode.value
            covered = (blocks - index if mode is Mode.SCOUT else 1) / blocks
            parts[mode.value] = parts.get(mode.value, 0.0) + covered
            if mode is Mode.SCOUT:
                yield recorded[mode][0]
                return
            yield recorded[mode][index]

    async def _flood(self, number: int) -> ReplayOutcome:
        """Until the cloud ends it, or for ``FLOOD_S``."""
        outcome, call = ReplayOutcome(number), self._stream()
        ends_s = time.monotonic() + FLOOD_S
        try:
            async with StreamWriter(call) as writer:
                await writer.send(encode_edge(actions.SendOpen(self._parameters(lies=False))))
                while time.monotonic() < ends_s:
                    await self._push(writer, outcome, self._chunk_bytes)
        except StreamEnded:
            outcome.error = "ENDED"
        except ScoutError as error:
            outcome.error = error.reason
        call.cancel()
        return outcome

    async def _push(self, writer: StreamWriter, outcome: ReplayOutcome, size: int) -> None:
        """A proper chunk of at most so many bytes, behind those that were sent."""
        payload, at = self._payload, outcome.payload_bytes
        piece = payload[at % len(payload) :][:size]
        await writer.send(encode_edge(actions.SendChunk(at, piece, chunk_checksum(piece))))
        outcome.payload_bytes += len(piece)

    async def _spend(
        self, number: int, *, at_once_bytes: int, again: bool = False
    ) -> ReplayOutcome:
        """Sends beyond its first credit until the cloud has ended it, or for ``FLOOD_S``; with 0
        bytes it leaves."""
        outcome, call = ReplayOutcome(number), self._stream()
        try:
            async with asyncio.timeout(FLOOD_S), StreamWriter(call) as writer:
                await writer.send(encode_edge(actions.SendOpen(self._parameters(lies=False))))
                outcome.payload_bytes = await _first_credit(call) + AHEAD_BYTES
                if at_once_bytes:
                    await self._push(writer, outcome, at_once_bytes)
                    while again:
                        await self._push(writer, outcome, at_once_bytes)
                else:
                    await writer.send(encode_edge(actions.SendCancel()))
                while True:
                    await read_stream(call)
        except (StreamEnded, TimeoutError):
            outcome.error = "ENDED"
        call.cancel()
        return outcome

    def _stream(self) -> Any:
        return self._data.stream_stream(
            SESSION_METHOD, request_serializer=None, response_deserializer=None
        )(metadata=tenant_metadata(DEFAULT_TENANT))

    def _parameters(self, *, lies: bool) -> OpenParameters:
        offers = self._recording.offers()
        if self._script.only:
            offers = tuple(offer for offer in offers if offer.mode.value == self._script.only)
        small = Offer(Mode.KV_BF16, 1.0, 400, 1.0, 0.0)
        return OpenParameters(
            session_id=SessionId(uuid.uuid4().hex),
            agent_id=AgentId(self._script.agent),
            model_fingerprint=ModelFingerprint(self._recording.fingerprint),
            context_hash=self._recording.context_hash,
            context_tokens=self._recording.context_tokens,
            question="who built the lighthouse?",
            mode=Mode.KV_BF16 if lies else offers[0].mode,
            retention=1.0,
            deadline_s=self._script.deadline_s,
            sampling=SamplingOptions(max_tokens=1),
            round_trip_s=self._script.round_trip_s,
            offers=(small,) if lies else offers,
        )


def _options(chunk_bytes: int) -> SessionOptions:
    return SessionOptions(
        tenant=DEFAULT_TENANT,
        send_policy=SendPolicy(chunk_bytes=chunk_bytes),
        timeouts=EdgeTimeouts(resume_window_s=0.0),
        lookahead_bytes=LOOKAHEAD_BYTES,
    )


async def _first_credit(call: Any) -> int:
    """Waits for credit and returns it, in bytes of payload."""
    while True:
        for event in decode_cloud(await read_stream(call)):
            if isinstance(event, events.CreditGranted):
                return event.credit_bytes


def _begin(agent: str) -> float:
    """Says that it is attached; the answer is the instant that the script's times count from."""
    _say({"attached": agent})
    return float(json.loads(sys.stdin.readline())["begins_s"])


def _say(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


async def _play(script: ReplayScript) -> None:
    """Channels belong to the loop that runs when they are made."""
    await ReplayAgent(script).run()


def main() -> None:
    """Reads the script and plays it; standard output is for its caller alone."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    facts = json.loads(sys.stdin.readline())
    facts["begins_s"] = tuple(facts["begins_s"])
    uvloop.run(_play(ReplayScript(**facts)))


if __name__ == "__main__":
    main()

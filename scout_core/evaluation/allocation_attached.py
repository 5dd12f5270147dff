"""Many attached agents on one cloud server: how soon a request has its share, and what it costs.

The client's half: control streams with heartbeats over a few channels, requests that arrive as a
Poisson process, each opened by one of the agents and held for as long as its transfer would take.
Payloads are not sent: what is measured is the path from open to the first share while the server
keeps everybody's heartbeats, leases and shares. This module knows neither how the server is started
nor what it is told of the uplink.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from scout.v1 import control_pb2

from scout_core.errors import PeerUnavailableError, ScoutError
from scout_core.modes import AgentId, ContextHash, Mode, ModelFingerprint, SessionId
from scout_core.protocol import actions, events
from scout_core.protocol.opening import Offer, OpenParameters
from scout_core.rpc.bounded_queue import StreamEnded
from scout_core.rpc.channel import open_channel
from scout_core.rpc.handlers import ATTACH_METHOD, SESSION_METHOD
from scout_core.rpc.messages import MODE_TO_WIRE, decode
from scout_core.rpc.options import ChannelRole
from scout_core.rpc.session_wire import decode_cloud, encode_edge
from scout_core.rpc.stream import StreamPump
from scout_core.rpc.tenancy import DEFAULT_TENANT, tenant_metadata
from scout_core.sampling import SamplingOptions
from scout_core.version import VERSION

CONTEXT_TOKENS: Final = 170
KV_BYTES: Final = 3_900_000
"""SmolLM2-135M, 170 tokens (DESIGN §2)."""
OFFERS: Final = (
    Offer(Mode.KV_BF16, 1.0, KV_BYTES, 1.0, 0.0),
    Offer(Mode.KV_INT8, 1.0, KV_BYTES * 17 // 32, 0.97, 0.0),
    Offer(Mode.KV_INT4, 1.0, KV_BYTES * 9 // 32, 0.9, 0.0),
    Offer(Mode.SCOUT, 1.0, 366, 0.6, 0.0),
)
DEADLINES_S: Final = (1.0, 2.0, 5.0)
ATTACH_TIMEOUT_S: Final = 30.0
SHARE_TIMEOUT_S: Final = 10.0
ATTACHED_AT_ONCE: Final = 50
BUFFER_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class AttachedPlan:
    """What is played.

    Attributes:
        agents: attached at the same time; ``channels``: connections that they share.
        requests_per_s: of all agents together, Poisson.
        hold_s: mean time that a session lives after its share, exponential.
        seconds: how long, after everybody is attached.
        seed: of arrivals and holds.
    """

    agents: int = 1_000
    channels: int = 8
    requests_per_s: float = 20.0
    hold_s: float = 1.0
    seconds: float = 20.0
    seed: int = 0
    group: str = "cell"


@dataclass(slots=True)
class AttachedRun:
    """What the client saw.

    Attributes:
        share_s: ``[requests]`` from sending the open to reading the acceptance with its share.
        ack_s: ``[heartbeats]`` round trips of heartbeats.
        refused: requests that were told to come back.
        late_s: most by which this client's own loop was late: if large, it measured itself.
    """

    share_s: list[float] = field(default_factory=list[float])
    ack_s: list[float] = field(default_factory=list[float])
    refused: int = 0
    late_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ProcessCost:
    """A process at one moment: processor seconds so far, resident memory now."""

    cpu_s: float
    memory_bytes: int

    @classmethod
    def of(cls, process_id: int) -> ProcessCost:
        """Reads Linux' /proc (proc(5): fields 14 and 15 of stat in ticks of 10 ms)."""
        folder = Path(f"/proc/{process_id}")
        fields = (folder / "stat").read_text(encoding="ascii").rpartition(")")[2].split()
        pages = int((folder / "statm").read_text(encoding="ascii").split()[1])
        return cls((int(fields[11]) + int(fields[12])) / 100, pages * 4_096)


class AttachedFleet:
    """The agents of one plan; use as ``async with``, which attaches them all.

    Args:
        address: of the cloud server.
        plan: see there.
    """

    def __init__(self, address: str, plan: AttachedPlan) -> None:
        self._address = address
        self._plan = plan
        self._channels: list[Any] = []
        self._streams: list[Any] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._beats_s: dict[int, float] = {}
        self._fingerprint = ModelFingerprint("")
        self._interval_s = 1.0
        self._run = AttachedRun()

    async def __aenter__(self) -> AttachedFleet:
        plan = self._plan
        roles = (ChannelRole.CONTROL, ChannelRole.DATA)
        self._channels = [
            open_channel(self._address, roles[number % 2]) for number in range(2 * plan.channels)
        ]
        for first in range(0, plan.agents, ATTACHED_AT_ONCE):
            numbers = range(first, min(first + ATTACHED_AT_ONCE, plan.agents))
            async with asyncio.timeout(ATTACH_TIMEOUT_S):
                self._streams += await asyncio.gather(*(self._attach(each) for each in numbers))
        for number, stream in enumerate(self._streams):
            self._start(self._listen(number, stream))
        self._start(self._beat())
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for stream in self._streams:
            stream.cancel()
        for channel in self._channels:
            await channel.close()

    async def play(self) -> AttachedRun:
        """Requests for the plan's time; sessions still held then end with the fleet."""
        plan, source = self._plan, random.Random(self._plan.seed)  # noqa: S311 - a workload
        self._run = AttachedRun()
        begun_s = due_s = time.monotonic()
        while due_s < begun_s + plan.seconds:
            due_s += source.expovariate(plan.requests_per_s)
            await asyncio.sleep(max(due_s - time.monotonic(), 0.0))
            self._run.late_s = max(self._run.late_s, time.monotonic() - due_s)
            number = source.randrange(plan.agents)
            deadline_s = source.choice(DEADLINES_S)
            hold_s = source.expovariate(1 / plan.hold_s)
            self._start(self._ask(number, deadline_s, hold_s))
        return self._run

    def _start(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _attach(self, number: int) -> Any:
        channel = self._channels[2 * (number % self._plan.channels)]
        stream = channel.stream_stream(
            ATTACH_METHOD, request_serializer=None, response_deserializer=None
        )(metadata=tenant_metadata(DEFAULT_TENANT))
        register = control_pb2.Register(
            agent_id=_agent(number),
            version=VERSION,
            modes=[MODE_TO_WIRE[mode] for mode in Mode],
            uplink_group=self._plan.group,
        )
        await stream.write(control_pb2.AttachRequest(register=register).SerializeToString())
        registered = _response(await stream.read()).registered
        if not registered.uplink_scheduled:
            raise PeerUnavailableError(
                f"The server does not schedule the uplink {self._plan.group!r}; configure it."
            )
        self._fingerprint = ModelFingerprint(registered.model.fingerprint)
        self._interval_s = registered.heartbeat_interval.ToMilliseconds() / 1_000
        return stream

    async def _beat(self) -> None:
        """Everybody's heartbeats, spread evenly over the interval."""
        sequence, due_s = 0, time.monotonic()
        while True:
            sequence += 1
            beat = control_pb2.Heartbeat(sequence=sequence, round_trip_us=1_000)
            message = control_pb2.AttachRequest(heartbeat=beat).SerializeToString()
            for number, stream in enumerate(self._streams):
                due_s += self._interval_s / len(self._streams)
                wait_s = due_s - time.monotonic()
                if wait_s > 0:
                    await asyncio.sleep(wait_s)
                self._beats_s[number] = time.monotonic()
                await stream.write(message)

    async def _listen(self, number: int, stream: Any) -> None:
        while isinstance(data := await stream.read(), bytes):
            if _response(data).WhichOneof("event") == "heartbeat_ack":
                self._run.ack_s.append(time.monotonic() - self._beats_s[number])

    async def _ask(self, number: int, deadline_s: float, hold_s: float) -> None:
        channel = self._channels[2 * (number % self._plan.channels) + 1]
        call = channel.stream_stream(
            SESSION_METHOD, request_serializer=None, response_deserializer=None
        )(metadata=tenant_metadata(DEFAULT_TENANT))
        opening = encode_edge(actions.SendOpen(self._parameters(number, deadline_s)))
        sent_s = time.monotonic()
        try:
            async with StreamPump(
                call, inbox_bytes=BUFFER_BYTES, outbox_bytes=BUFFER_BYTES
            ) as pump:
                await pump.send(opening)
                first = decode_cloud(await pump.receive(SHARE_TIMEOUT_S))[0]
                if not isinstance(first, events.Accepted):
                    raise PeerUnavailableError("The first message was no acceptance.")
                self._run.share_s.append(time.monotonic() - sent_s)
                await asyncio.sleep(hold_s)
                await pump.send(encode_edge(actions.SendCancel()))
                await pump.flush()
        except (StreamEnded, ScoutError):
            self._run.refused += 1
        finally:
            call.cancel()

    def _parameters(self, number: int, deadline_s: float) -> OpenParameters:
        return OpenParameters(
            session_id=SessionId(uuid.uuid4().hex),
            agent_id=_agent(number),
            model_fingerprint=self._fingerprint,
            context_hash=ContextHash(bytes(32)),
            context_tokens=CONTEXT_TOKENS,
            question="who?",
            mode=Mode.KV_BF16,
            retention=1.0,
            deadline_s=deadline_s,
            sampling=SamplingOptions(max_tokens=1),
            round_trip_s=0.001,
            offers=OFFERS,
        )


def _response(data: object) -> control_pb2.AttachResponse:
    """Raises PeerUnavailableError at the end of the stream."""
    if not isinstance(data, bytes):
        raise PeerUnavailableError("The control stream ended; see the server's log.")
    return decode(control_pb2.AttachResponse, data)


def _agent(number: int) -> AgentId:
    return AgentId(f"agent-{number}")

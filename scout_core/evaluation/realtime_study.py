"""Real requests through both daemons while the link replays a trace, beside the link's twin.

Owns the run, the twin's answer and the rows. It gets a client of a running edge agent and the link
in front of its cloud; starting them is the command's business.

The twin is ``testbed.exchanges``: the same arrivals on the same schedule, each request with the
bytes and the compute times it had in reality. So the two figures differ by what happened between
the modules in real time (event loops, gRPC, credit, scheduling of the processors), not by the
policy's choices. What the policy would have chosen is ``scout eval policy``'s subject.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from scout.v1 import inference_pb2

from scout_core.errors import RemoteProtocolError, ScoutError
from scout_core.evaluation.policy_links import Link
from scout_core.evaluation.realtime_requests import TimedRequest
from scout_core.modes import Mode
from scout_core.rpc.client import Ask, InferenceClient
from scout_core.rpc.messages import mode_from_wire
from scout_core.testbed.exchanges import Exchange, simulate
from scout_core.testbed.link import Direction, LinkConfig
from scout_core.testbed.proxy import LinkEmulator
from scout_core.testbed.schedule import RateSchedule

ROUND_TRIP_S: Final = 0.03
DOWNLINK_MBPS: Final = 50.0
MAX_ANSWER_TOKENS: Final = 4
FRAME_BYTES: Final = 60
"""HTTP/2, TCP and token message around one answer token, roughly."""


@dataclass(frozen=True, slots=True)
class RealOutcome:
    """One request as it went; ``twin_ttft_s`` is what the virtual link makes of it.

    A failed request has no mode and infinite times.
    """

    request: TimedRequest
    mode: Mode | None
    ttft_s: float
    twin_ttft_s: float
    uplink_bytes: int
    degradation: str
    error: str = ""

    @property
    def met(self) -> bool:
        return self.ttft_s <= self.request.deadline_s

    @property
    def twin_met(self) -> bool:
        return self.twin_ttft_s <= self.request.deadline_s


@dataclass(frozen=True, slots=True)
class RealtimeRow:
    """One trace."""

    trace: str
    tech_class: str
    requests: int
    failed: int
    compliance: float
    twin_compliance: float
    ttft_p50_s: float
    twin_ttft_p50_s: float
    uplink_bytes_mean: float
    modes: dict[str, int]
    errors: dict[str, int]


def link_config(schedule: RateSchedule) -> LinkConfig:
    """The emulated link, uplink after the trace."""
    return LinkConfig(schedule, RateSchedule.constant(DOWNLINK_MBPS), ROUND_TRIP_S)


async def run_trace(
    client: InferenceClient,
    emulator: LinkEmulator,
    link: Link,
    requests: Sequence[TimedRequest],
) -> tuple[RealOutcome, ...]:
    """Uploads the contexts to the edge, then replays the trace and asks the requests on time.

    Raises:
        ScoutError: a context was not taken.
    """
    stored = [(await client.put_context(request.context)).context_hash for request in requests]
    emulator.set_schedule(Direction.UP, link.schedule)
    began_s = time.monotonic()
    async with asyncio.TaskGroup() as group:
        asking = [
            group.create_task(_ask_at(client, request, key, began_s))
            for request, key in zip(requests, stored, strict=True)
        ]
    return _with_twin(link, requests, [task.result() for task in asking])


def row_of(link: Link, outcomes: Sequence[RealOutcome]) -> RealtimeRow:
    """Shares and medians of one trace; failed requests count as late in both."""
    count = len(outcomes)
    return RealtimeRow(
        trace=link.name,
        tech_class=link.tech_class,
        requests=count,
        failed=sum(outcome.mode is None for outcome in outcomes),
        compliance=sum(outcome.met for outcome in outcomes) / count,
        twin_compliance=sum(outcome.twin_met for outcome in outcomes) / count,
        ttft_p50_s=median(outcome.ttft_s for outcome in outcomes),
        twin_ttft_p50_s=median(outcome.twin_ttft_s for outcome in outcomes),
        uplink_bytes_mean=sum(outcome.uplink_bytes for outcome in outcomes) / count,
        modes=dict(Counter(outcome.mode.value for outcome in outcomes if outcome.mode)),
        errors=dict(Counter(outcome.error for outcome in outcomes if outcome.error)),
    )


@dataclass(frozen=True, slots=True)
class _Asked:
    """The closing message, or the error in its place."""

    finished: inference_pb2.Finished | None
    error: ScoutError | None = None


async def _ask_at(
    client: InferenceClient, request: TimedRequest, key: bytes, began_s: float
) -> _Asked:
    await asyncio.sleep(max(0.0, began_s + request.arrival_s - time.monotonic()))
    ask = Ask(
        request.question,
        context_hash=key,
        deadline_s=request.deadline_s,
        max_tokens=MAX_ANSWER_TOKENS,
    )
    try:
        async for response in client.generate(ask):
            if response.WhichOneof("event") == "finished":
                return _Asked(response.finished)
    except ScoutError as error:
        return _Asked(None, error)
    return _Asked(None, RemoteProtocolError("The answer ended without its accounting; ask again."))


def _with_twin(
    link: Link, requests: Sequence[TimedRequest], asked: Sequence[_Asked]
) -> tuple[RealOutcome, ...]:
    answered = [
        (request, one.finished)
        for request, one in zip(requests, asked, strict=True)
        if one.finished is not None
    ]
    exchanges = [_exchange(request, finished) for request, finished in answered]
    times = simulate(link_config(link.schedule), exchanges)
    twin_s = {
        request: of.answered_s - request.arrival_s
        for (request, _), of in zip(answered, times, strict=True)
    }
    return tuple(
        _outcome(request, one, twin_s.get(request, math.inf))
        for request, one in zip(requests, asked, strict=True)
    )


def _exchange(request: TimedRequest, finished: inference_pb2.Finished) -> Exchange:
    """The request for the twin: the edge computes, sends; the cloud computes, answers.

    KV is encoded while it is sent, so encoding is not on the path (policy_simulation does likewise
    beyond the first block).
    """
    timing = finished.timing
    return Exchange(
        arrival_s=request.arrival_s + timing.edge_prefill_s + timing.edge_score_s,
        up_bytes=max(1, finished.bytes.uplink_bytes),
        server_s=timing.cloud_queue_s + timing.cloud_inject_s + timing.cloud_prefill_s,
        down_bytes=FRAME_BYTES,
    )


def _outcome(request: TimedRequest, asked: _Asked, twin_ttft_s: float) -> RealOutcome:
    finished = asked.finished
    if finished is None:
        reason = asked.error.reason if asked.error is not None else ""
        return RealOutcome(request, None, math.inf, math.inf, 0, "", reason)
    return RealOutcome(
        request,
        mode_from_wire(finished.mode),
        finished.timing.ttft_s,
        twin_ttft_s,
        finished.bytes.uplink_bytes,
        finished.degradation,
    )

"""Agents as processes on one scheduled uplink.

This module owns the recording, the agents' processes, the comparison of grants with what arrived,
and the figures; what virtual time says of the same case is ``allocation_prediction``'s. The caller
starts the cloud server and the link, because only it may know daemons.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from scout.v1 import control_pb2, control_pb2_grpc

from scout_core.codec.registry import codec_for_mode
from scout_core.codec.tokens import encode_tokens
from scout_core.daemon.contexts import context_hash
from scout_core.engine import Engine
from scout_core.evaluation.allocation_recording import Recording
from scout_core.evaluation.allocation_replay import Conduct, ReplayOutcome, ReplayScript
from scout_core.modes import Mode
from scout_core.protocol.blocks import BlockKind, encode_block
from scout_core.rpc.channel import open_channel
from scout_core.rpc.options import ChannelRole
from scout_core.testbed.line_process import LineProcess

BLOCK_TOKENS: Final = 32
"""As the edge's blocks on the wire."""
NO_CODEC: Final = 0
REPLAY: Final = (sys.executable, "-m", "scout_core.evaluation.allocation_replay")
START_S: Final = 0.5
POLL_S: Final = 0.05
POLL_TIMEOUT_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class RealCase:
    """What is played, in reality and in virtual time.

    Attributes:
        deadlines_s: of each agent's requests; their number is that of the agents.
        rounds, period_s: all agents ask at once, every so often.
        capacity_bytes_per_s: as the cloud is configured.
        reserve: part of each deadline that the cloud's schedule leaves free.
        round_trip_s: of the link.
        only: the one mode that everybody offers; None: all.
        head_start_s: the last agent asks so much before the others.
        chunk_bytes: of payload, at most, as the edges are set; the cloud may take less at once.
    """

    deadlines_s: tuple[float, ...]
    rounds: int
    period_s: float
    capacity_bytes_per_s: float
    reserve: float
    round_trip_s: float
    group: str = "cell"
    only: Mode | None = None
    head_start_s: float = 0.0
    chunk_bytes: int = 16 * 1024

    def agent(self, number: int) -> str:
        return f"replay-{number}"


@dataclass(slots=True)
class RealRun:
    """Outcomes per agent, and what each was granted in bytes while the run lasted."""

    outcomes: list[list[ReplayOutcome]]
    granted_bytes: dict[str, float] = field(default_factory=dict[str, float])


def record(engine: Engine, context_tokens: int) -> Recording:
    """Prefills a context of so many tokens and encodes its KV, head included."""
    seed = hashlib.sha256(b"recording").digest()
    usual = engine.vocabulary - 1
    tokens = tuple(1 + (seed[at % 32] * (at + 7)) % usual for at in range(context_tokens))
    head = engine.prompt.head_tokens
    cache = engine.new_cache(len(head) + context_tokens)
    engine.prefill(cache, (*head, *tokens))
    blocks: dict[Mode, tuple[bytes, ...]] = {}
    for mode in (Mode.KV_BF16, Mode.KV_INT8, Mode.KV_INT4):
        codec = codec_for_mode(mode)
        parts: list[bytes] = []
        for start in range(0, cache.length, BLOCK_TOKENS):
            kv = cache.tensor(start, min(start + BLOCK_TOKENS, cache.length))
            header = (BlockKind.KV, int(codec.codec_id), start, kv.shape[3])
            parts.append(encode_block(*header, codec.encode(kv)))
        blocks[mode] = tuple(parts)
    body = encode_tokens(tokens, engine.vocabulary)
    blocks[Mode.SCOUT] = (encode_block(BlockKind.TOKENS, NO_CODEC, 0, len(tokens), body),)
    key = context_hash(tokens, engine.tokenizer_fingerprint)
    return Recording(engine.fingerprint, key, context_tokens, blocks)


class _Agent:
    """One replaying process."""

    def __init__(self, script: ReplayScript) -> None:
        self._script = script
        self._child = LineProcess("replaying agent", REPLAY)

    async def __aenter__(self) -> _Agent:
        await self._child.start()
        await self._child.write(asdict(self._script))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._child.end(timeout_s=0.0)

    async def attached(self) -> None:
        await self._child.read()

    async def begin(self, at_s: float) -> None:
        await self._child.write({"begins_s": at_s})

    async def outcomes(self) -> list[ReplayOutcome]:
        return [ReplayOutcome(**facts) for facts in (await self._child.read())["outcomes"]]


async def run_real(
    case: RealCase,
    recording: Path,
    addresses: tuple[str, str],
    last: Conduct = Conduct.HONEST,
) -> RealRun:
    """Plays the case with one process per agent.

    Args:
        case, recording: what is played; the folder of the recording.
        addresses: the cloud's through the link, and its own.
        last: how the last agent behaves.
    """
    agents = len(case.deadlines_s)
    begins_s = [case.period_s * number for number in range(case.rounds)]
    later_s = [begin_s + case.head_start_s for begin_s in begins_s]
    scripts = [
        ReplayScript(
            agent=case.agent(number),
            group=case.group,
            address=addresses[0],
            recording=str(recording),
            begins_s=tuple(begins_s if number == agents - 1 else later_s),
            deadline_s=deadline_s,
            round_trip_s=case.round_trip_s,
            only=case.only.value if case.only else "",
            chunk_bytes=case.chunk_bytes,
            conduct=(last if number == agents - 1 else Conduct.HONEST).value,
        )
        for number, deadline_s in enumerate(case.deadlines_s)
    ]
    async with AsyncExitStack() as stack:
        players = [await stack.enter_async_context(_Agent(script)) for script in scripts]
        await asyncio.gather(*(player.attached() for player in players))
        run = RealRun([])
        watching = asyncio.create_task(_watch(addresses[1], run.granted_bytes))
        begin_s = time.monotonic() + START_S
        for player in players:
            await player.begin(begin_s)
        run.outcomes = list(await asyncio.gather(*(player.outcomes() for player in players)))
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    return run


async def _watch(address: str, granted_bytes: dict[str, float]) -> None:
    """Integrates every agent's share, as status shows it."""
    channel = open_channel(address, ChannelRole.APPLICATION)
    stub = control_pb2_grpc.ControlServiceStub(channel)
    try:
        seen_s = time.monotonic()
        while True:
            request = control_pb2.GetStatusRequest()
            status = await stub.GetStatus(request, timeout=POLL_TIMEOUT_S)
            now = time.monotonic()
            for agent in status.cloud.agents:
                share = agent.granted_bytes_per_s * (now - seen_s)
                granted_bytes[agent.agent_id] = granted_bytes.get(agent.agent_id, 0.0) + share
            seen_s = now
            await asyncio.sleep(POLL_S)
    finally:
        await channel.close()


def figures(case: RealCase, run: RealRun) -> dict[str, Any]:
    """What happened, as one JSON object; the last agent counts only if it is honest. ``modes``: how
    much of all contexts crossed in each."""
    asked = [
        (number, outcome)
        for number, outcomes in enumerate(run.outcomes)
        for outcome in outcomes
        if outcome.mode
    ]
    in_time = [outcome.first_token_s <= case.deadlines_s[number] for number, outcome in asked]
    ratios = {
        case.agent(number): sum(outcome.payload_bytes for outcome in outcomes) / granted
        for number, outcomes in enumerate(run.outcomes)
        if (granted := run.granted_bytes.get(case.agent(number), 0.0)) > 0
    }
    delivered = sum(outcome.payload_bytes for _, outcome in asked)
    return {
        "requests": len(asked),
        "compliance": float(np.mean(in_time)),
        "modes": mode_shares([outcome.parts for _, outcome in asked]),
        "first_token_after_delivery_s": float(
            np.median([outcome.first_token_s - outcome.delivered_s for _, outcome in asked])
        ),
        "delivered_over_granted": delivered / max(sum(run.granted_bytes.values()), 1.0),
        "delivered_over_granted_by_agent": ratios,
        "errors": sorted({outcome.error for _, outcome in asked if outcome.error}),
    }


def mode_shares(parts: Sequence[dict[str, float]]) -> dict[str, float]:
    """How much of all contexts crossed in each mode."""
    names = sorted({name for kept in parts for name in kept})
    return {name: sum(kept.get(name, 0.0) for kept in parts) / len(parts) for name in names}

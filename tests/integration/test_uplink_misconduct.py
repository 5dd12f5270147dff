"""An agent that does not keep to its share: it is stopped, reported, and the others do not pay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from scout_core.codec.registry import codec_for_mode
from scout_core.errors import CreditExceededError, OverloadedError, PeerUnavailableError, ScoutError
from scout_core.modes import AgentId, Mode, SessionId
from scout_core.protocol import actions, events
from scout_core.protocol.blocks import BlockKind, encode_block
from scout_core.protocol.checksum import chunk_checksum
from scout_core.protocol.opening import Offer, OpenParameters
from scout_core.testbed.queueing import Discipline
from tests.support.raw_session import RawSession, opening, raw_session
from tests.support.tiny_models import save_tiny_model
from tests.support.uplink_cell import BYTES_PER_MEGABIT, GROUP, Cell, running_cell

HONEST = 3
UP_MBPS = 1.0
CAPACITY = 0.9 * UP_MBPS * BYTES_PER_MEGABIT
DEADLINE_S = 4.0
TOKENS = tuple(range(2, 402))
SMALL = Offer(Mode.SCOUT, 1.0, 400, 1.0, 0.0)
BLOCK_TOKENS = 32
BODY = bytes(4_000)
"""No larger than the cloud takes on so slow an uplink."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("misconduct") / "llama")


@asynccontextmanager
async def cell_with_rogue(model: Path) -> AsyncGenerator[Cell]:
    """The last agent attaches like the others; its sessions are driven by hand.

    The link serves connections in turn, as a cell does with its devices: what one pushes into its
    own modem queues there. (Behind one shared FIFO queue nobody at the far end could help.)
    """
    async with running_cell(
        model,
        HONEST + 1,
        UP_MBPS,
        capacity_bytes_per_s=CAPACITY,
        discipline=Discipline.FAIR,
        uplink_deadline_reserve=0.25,
    ) as cell:
        yield cell


def rogue_opening(cell: Cell, name: str, **changes: Any) -> OpenParameters:
    host = cell.cloud.host
    assert host is not None
    parameters: dict[str, Any] = {
        "agent_id": AgentId(f"edge-{HONEST}"),
        "session_id": SessionId(name),
        "deadline_s": DEADLINE_S,
        "offers": (SMALL,),
    }
    return opening(host, TOKENS, **(parameters | changes))


def reports(cell: Cell, kind: str) -> float:
    labels = {"group": GROUP, "kind": kind}
    value = cell.cloud.metrics.registry.get_sample_value("scout_cloud_uplink_reports_total", labels)
    return value or 0.0


async def flood(cell: Cell, name: str) -> ScoutError:
    """Sends chunk after chunk without credit, until the cloud ends it."""
    async with raw_session(cell.uplink_address) as session:
        await session.send(actions.SendOpen(rogue_opening(cell, name)))
        await session.accepted()
        sending = asyncio.create_task(_send_without_end(session))
        try:
            _, error = await session.failure()
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        return error


async def _send_without_end(session: RawSession) -> None:
    offset = 0
    while True:
        await session.send(actions.SendChunk(offset, BODY, chunk_checksum(BODY)))
        offset += len(BODY)


async def send_more_than_offered(cell: Cell) -> int:
    """Keeps to its credit, but not to its offer: KV where token ids were declared. Returns how much
    it got through until it was cancelled or stopped."""
    stream = whole_kv(cell)
    sent, granted = 0, 0
    async with raw_session(cell.uplink_address) as session:
        await session.send(actions.SendOpen(rogue_opening(cell, "liar", mode=Mode.KV_BF16)))
        await session.accepted()
        try:
            while sent < len(stream):
                match await session.receive():
                    case events.CreditGranted(credit_bytes):
                        granted = credit_bytes
                    case None:
                        break
                    case _:
                        pass
                while piece := stream[sent:granted][: len(BODY)]:
                    await session.send(actions.SendChunk(sent, piece, chunk_checksum(piece)))
                    sent += len(piece)
        except asyncio.CancelledError:
            return sent
    return sent


def whole_kv(cell: Cell) -> bytes:
    """Blocks of noise for the whole context, all of them proper."""
    host, codec = cell.cloud.host, codec_for_mode(Mode.KV_BF16)
    assert host is not None
    geometry = host.engine.geometry
    noise = torch.randn(
        (geometry.layers, 2, geometry.kv_heads, BLOCK_TOKENS, geometry.head_dim),
        generator=torch.Generator().manual_seed(1),
    )
    body = codec.encode(noise.to(torch.bfloat16))
    return b"".join(
        encode_block(BlockKind.KV, int(codec.codec_id), start, BLOCK_TOKENS, body)
        for start in range(0, len(TOKENS) - BLOCK_TOKENS, BLOCK_TOKENS)
    )


async def ask_honest(cell: Cell) -> tuple[bool, ...]:
    honest = Cell(cell.cloud, cell.link, cell.edges[:HONEST], cell.clients[:HONEST])
    return tuple(outcome.in_time for outcome in await honest.ask_all(DEADLINE_S))


async def test_a_flood_without_credit_ends_at_once_and_keeps_its_sender_out(model: Path) -> None:
    async with cell_with_rogue(model) as cell:
        asking = asyncio.create_task(ask_honest(cell))
        await asyncio.sleep(0.3)
        # A sender that never reads may see its stream break before it sees why; the cloud's own
        # books below say what happened.
        seen = await flood(cell, "flood")
        assert isinstance(seen, CreditExceededError | PeerUnavailableError)
        assert reports(cell, "beyond_grant") == 1
        async with raw_session(cell.uplink_address) as session:
            await session.send(actions.SendOpen(rogue_opening(cell, "again")))
            _, refused = await session.failure()
        assert isinstance(refused, OverloadedError)
        assert float(refused.details["retry_after_s"]) > 0
        assert all(await asking)
        ended = cell.cloud.metrics.registry.get_sample_value(
            "scout_cloud_sessions_ended_total", {"outcome": "CREDIT_EXCEEDED"}
        )
        assert ended == 1


async def test_who_declares_little_and_sends_much_gets_what_the_others_leave(model: Path) -> None:
    async with cell_with_rogue(model) as cell:
        lying = asyncio.create_task(send_more_than_offered(cell))
        await asyncio.sleep(0.2)
        assert all(await ask_honest(cell))
        lying.cancel()
        await asyncio.gather(lying, return_exceptions=True)
        assert reports(cell, "beyond_offer") >= 1

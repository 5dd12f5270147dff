"""Which of the KV that was sent could be finer, and whether there is time to make it so."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from edge_agent.payload import PayloadSource
from edge_agent.refining import SentKv
from edge_agent.steering import Steering
from scout_core.codec.embedded_bf16 import refinement_bytes
from scout_core.codec.groups import INT4_GROUPS, INT8_GROUPS
from scout_core.codec.lossless_bf16 import LosslessBf16Codec
from scout_core.codec.raw_bf16 import RawBf16Codec
from scout_core.control.sizes import BLOCK_HEADER_BYTES
from scout_core.engine import Engine
from scout_core.geometry import KvGeometry
from scout_core.modes import Mode
from scout_core.protocol.blocks import REFINABLE_BYTES, Block, BlockKind, BlockParser
from scout_core.protocol.events import ModeSwitched
from tests.support.tiny_models import save_tiny_model, tiny_engine
from tests.unit.edge.test_edge_planning import host_with, on_link, plan, question, view_of

GEOMETRY = KvGeometry(layers=2, kv_heads=1, head_dim=64)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return tiny_engine(save_tiny_model(tmp_path_factory.mktemp("refining")))


def sent_kv() -> SentKv:
    """Two coarse blocks, a finer and an exact one."""
    sent = SentKv(GEOMETRY)
    sent.note(0, 32, INT4_GROUPS)
    sent.note(32, 32, INT8_GROUPS)
    sent.note(64, 32, INT4_GROUPS)
    sent.note(96, 10, RawBf16Codec())
    sent.note(106, 10, LosslessBf16Codec())
    return sent


def test_a_rung_is_reached_by_refining_every_block_below_it() -> None:
    sent = sent_kv()
    assert sent.lowest is Mode.KV_INT4
    assert [block.start for block in sent.below(Mode.KV_INT8)] == [0, 64]
    assert [block.start for block in sent.below(Mode.KV_BF16)] == [0, 32, 64]
    plane = refinement_bytes(INT4_GROUPS, INT8_GROUPS, GEOMETRY, 32)
    assert sent.bytes_to(Mode.KV_INT8) == 2 * (plane + BLOCK_HEADER_BYTES)
    assert not any(sent.below(Mode.KV_INT4))
    assert sent.bytes_to(Mode.KV_INT4) == 0


def test_refined_blocks_are_where_they_were_refined_to() -> None:
    sent = sent_kv()
    for mode, lowest in ((Mode.KV_INT8, Mode.KV_INT8), (Mode.KV_BF16, None)):
        while block := next(sent.below(mode), None):
            sent.refined(block, mode)
        assert sent.lowest is lowest


def test_one_block_that_cannot_be_refined_leaves_the_others_too() -> None:
    huge = KvGeometry(layers=64, kv_heads=64, head_dim=256)
    too_much = SentKv(huge)
    count = REFINABLE_BYTES // huge.bf16_bytes(1) // 2 + 1
    too_much.note(0, count, INT4_GROUPS)
    assert too_much.lowest is Mode.KV_INT4
    too_much.note(count, count, INT4_GROUPS)
    assert too_much.lowest is None
    assert SentKv(GEOMETRY).lowest is None


def steering_of(
    engine: Engine, rate: float, *, deadline_s: float = 5.0, mode: Mode | None = None
) -> Steering:
    """Of a request in kv_int4 that arrives now, on a link of ``rate`` bytes/s."""
    host = on_link(host_with(engine), rate)
    asked = replace(question(host, deadline_s=deadline_s, mode=mode), arrived_s=time.monotonic())
    view = view_of(engine)
    chosen = plan(host, asked, view)
    offer = next(
        offer
        for offer in plan(host, replace(asked, deadline_s=60.0), view).offers
        if offer.mode is Mode.KV_INT4
    )
    decided = replace(chosen, decision=replace(chosen.decision, offer=offer))
    steering = Steering(host, view, asked, decided, lambda: 0, 0.02)
    # However slow this machine is: no upgrade of the rest before all of it is made.
    return replace(steering, _switched_s=time.monotonic() + 3600)


def test_kv_is_refined_where_link_and_deadline_allow_it_and_it_is_worth_it(engine: Engine) -> None:
    def wanted(steering: Steering) -> Mode | None:
        sent = SentKv(engine.geometry)
        sent.note(0, 32, INT4_GROUPS)
        return steering.refinement(sent, time.monotonic())

    # By the profile in use, bf16 is worth no more than int8: the fewer bytes are taken.
    assert wanted(steering_of(engine, 50e6)) is Mode.KV_INT8
    assert wanted(steering_of(engine, 50.0)) is None
    assert wanted(steering_of(engine, 50e6, deadline_s=0.001)) is None
    assert wanted(steering_of(engine, 50e6, mode=Mode.KV_INT4)) is None
    behind = replace(steering_of(engine, 50e6), backlog_bytes=lambda: 1 << 30)
    assert wanted(behind) is None


async def blocks_of(steering: Steering) -> tuple[list[Block], list[ModeSwitched], PayloadSource]:
    """All that is made."""
    source = PayloadSource(steering.host, steering.question, steering.plan, steering)
    parser, blocks, switches = BlockParser(), list[Block](), list[ModeSwitched]()
    async for item in source.items():
        if isinstance(item, ModeSwitched):
            switches.append(item)
        else:
            blocks.extend(parser.feed(item))
    return blocks, switches, source


async def test_refined_payload_holds_what_int8_would_have_sent(engine: Engine) -> None:
    steering = steering_of(engine, 50e6)
    blocks, switches, source = await blocks_of(steering)
    whole = {block.header.start: block for block in blocks if block.header.kind is BlockKind.KV}
    added = [block for block in blocks if block.header.kind is BlockKind.KV_REFINEMENT]
    assert [block.header.start for block in added] == list(whole)
    assert sum(block.header.count for block in added) == source.plan.facts.prefix_tokens
    cache = engine.new_cache()
    engine.prefill(cache, (*engine.prompt.head_tokens, *steering.question.stored.tokens))
    for block in added:
        header = block.header
        kv = cache.tensor(header.start, header.start + header.count)
        assert whole[header.start].body + block.body == INT8_GROUPS.encode(kv)
    assert [switch.cause for switch in switches] == ["link_recovered"]
    assert source.mode is Mode.KV_INT8
    assert source.times.kv_codecs == ["int4_groups", "int8_groups"]

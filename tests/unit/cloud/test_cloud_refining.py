"""A refinement makes of received KV exactly what direct coding would have sent, or is refused."""

from __future__ import annotations

import pytest
import torch

from cloud_server.assembly import PayloadAssembler
from cloud_server.refining import RefinableBlocks
from scout_core.codec.base import KvCodec
from scout_core.codec.embedded_bf16 import EMBEDDED_BF16, refinement
from scout_core.codec.groups import INT4_GROUPS, INT8_GROUPS
from scout_core.codec.raw_bf16 import RawBf16Codec
from scout_core.engine import Engine, KvCache
from scout_core.errors import CodecError, PayloadError
from scout_core.geometry import KvGeometry
from scout_core.modes import Mode
from scout_core.protocol.blocks import REFINABLE_BYTES, Block, BlockHeader, BlockKind
from tests.support.tiny_models import save_tiny_model, tiny_engine
from tests.unit.cloud.test_cloud_assembly import assembler, block, host_of, kv_blocks, prefilled

STEP = 16


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return tiny_engine(save_tiny_model(tmp_path_factory.mktemp("refining")))


def refinements(engine: Engine, lower: KvCodec, higher: KvCodec) -> list[Block]:
    cache = prefilled(engine)
    blocks: list[Block] = []
    for start in range(0, cache.length, STEP):
        kv = cache.tensor(start, min(start + STEP, cache.length))
        body = refinement(kv, lower, higher)
        codec_id = int(higher.codec_id)
        blocks.append(block(BlockKind.KV_REFINEMENT, codec_id, start, kv.shape[3], body))
    return blocks


async def assembled(engine: Engine, blocks: list[Block]) -> tuple[KvCache, str]:
    assembling = assembler(host_of(engine), mode=Mode.KV_INT4)
    for each in blocks:
        await assembling.add(each)
    prepared = await assembling.prepare()
    return prepared.cache, prepared.degradation


def content(cache: KvCache) -> torch.Tensor:
    return cache.tensor(0, cache.length)


async def test_int4_refined_to_int8_is_int8_bit_for_bit(engine: Engine) -> None:
    coarse = kv_blocks(engine, Mode.KV_INT4, STEP)
    refined, said = await assembled(
        engine, [*coarse, *refinements(engine, INT4_GROUPS, INT8_GROUPS)]
    )
    direct, silent = await assembled(engine, kv_blocks(engine, Mode.KV_INT8, STEP))
    assert torch.equal(content(refined), content(direct))
    assert f"{refined.length} positions refined" in said
    assert silent == ""


@pytest.mark.parametrize("by_steps", [True, False])
async def test_kv_refined_to_bf16_is_raw_bf16_bit_for_bit(engine: Engine, by_steps: bool) -> None:
    blocks = kv_blocks(engine, Mode.KV_INT4, STEP)
    if by_steps:
        blocks += refinements(engine, INT4_GROUPS, INT8_GROUPS)
        blocks += refinements(engine, INT8_GROUPS, EMBEDDED_BF16)
    else:
        blocks += refinements(engine, INT4_GROUPS, EMBEDDED_BF16)
    refined, _ = await assembled(engine, blocks)
    direct, _ = await assembled(engine, kv_blocks(engine, Mode.KV_BF16, STEP))
    assert torch.equal(content(refined), content(direct))


async def test_a_part_may_be_refined_at_any_time(engine: Engine) -> None:
    coarse = kv_blocks(engine, Mode.KV_INT4, STEP)
    finer = refinements(engine, INT4_GROUPS, INT8_GROUPS)
    refined, said = await assembled(engine, [coarse[0], finer[0], *coarse[1:], finer[2]])
    int4, _ = await assembled(engine, coarse)
    int8, _ = await assembled(engine, kv_blocks(engine, Mode.KV_INT8, STEP))
    for index in range(len(coarse)):
        expected = int8 if index in (0, 2) else int4
        part = slice(STEP * index, STEP * (index + 1))
        assert torch.equal(content(refined)[:, :, :, part], content(expected)[:, :, :, part])
    assert said.startswith(f"{2 * STEP} positions refined")


async def refused(assembling: PayloadAssembler, refinement: Block, words: str) -> None:
    with pytest.raises(PayloadError, match=words):
        await assembling.add(refinement)


async def test_refinements_of_nothing_received_are_refused_with_the_reason(engine: Engine) -> None:
    int4 = kv_blocks(engine, Mode.KV_INT4, STEP)
    to_int8 = refinements(engine, INT4_GROUPS, INT8_GROUPS)
    to_bf16 = refinements(engine, INT8_GROUPS, EMBEDDED_BF16)
    assembling = assembler(host_of(engine), mode=Mode.KV_INT4)
    await refused(assembling, to_int8[0], "no block that can be refined")
    await assembling.add(int4[0])
    await refused(assembling, to_int8[1], "from 16 on, but no block")
    header = to_int8[0].header
    shorter = block(BlockKind.KV_REFINEMENT, 2, 0, header.count - 1, b"x")
    await refused(assembling, shorter, "refine whole blocks")
    for codec in (INT4_GROUPS, RawBf16Codec()):
        other = block(BlockKind.KV_REFINEMENT, int(codec.codec_id), 0, header.count, b"x")
        await refused(assembling, other, "is no refinement of codec 3")
    await assembling.add(to_int8[0])
    await refused(assembling, to_int8[0], "is no refinement of codec 2")
    await assembling.add(to_bf16[0])
    await refused(assembling, to_bf16[0], "already exact")


async def test_exact_kv_is_not_refined(engine: Engine) -> None:
    assembling = assembler(host_of(engine), mode=Mode.KV_BF16)
    await assembling.add(kv_blocks(engine, Mode.KV_BF16, STEP)[0])
    await refused(assembling, refinements(engine, INT8_GROUPS, EMBEDDED_BF16)[0], "already exact")


async def test_a_damaged_refinement_is_refused_and_changes_nothing(engine: Engine) -> None:
    assembling = assembler(host_of(engine), mode=Mode.KV_INT4)
    await assembling.add(kv_blocks(engine, Mode.KV_INT4, STEP)[0])
    good = refinements(engine, INT4_GROUPS, INT8_GROUPS)[0]
    short = block(BlockKind.KV_REFINEMENT, 2, 0, STEP, good.body[:-1])
    with pytest.raises(CodecError):
        await assembling.add(short)
    await assembling.add(good)


def test_payloads_are_kept_up_to_the_agreed_bytes() -> None:
    geometry = KvGeometry(layers=64, kv_heads=8, head_dim=256)
    count = REFINABLE_BYTES // geometry.bf16_bytes(1) // 2 - 1
    held = RefinableBlocks(geometry)
    for start in (0, count, 2 * count):
        held.hold(BlockHeader(BlockKind.KV, 3, start, count, 1), b"x")
    for start, kept in ((0, True), (count, True), (2 * count, False)):
        refining = block(BlockKind.KV_REFINEMENT, 2, start, count, b"y")
        if kept:
            assert held.refined(refining) == b"xy"
        else:
            with pytest.raises(PayloadError, match="more than is kept"):
                held.refined(refining)

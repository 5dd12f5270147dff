"""Blocks become the cache they were made from; what contradicts the session is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cloud_server.assembly import PayloadAssembler
from cloud_server.host import ModelHost
from scout_core.codec.positions import encode_positions
from scout_core.codec.registry import codec_for_mode
from scout_core.codec.tokens import encode_tokens
from scout_core.codec.transform import TransformCodec
from scout_core.codec.transform_basis import TransformBasis
from scout_core.daemon.contexts import ContextStore
from scout_core.daemon.worker import TorchWorker
from scout_core.engine import Engine, KvCache
from scout_core.errors import CodecError, PayloadError, UnknownContextError
from scout_core.modes import Execution, Mode, TenantId
from scout_core.protocol.blocks import Block, BlockKind, BlockParser, encode_block
from scout_core.sampling import SamplingOptions
from tests.support.raw_session import opening
from tests.support.tiny_models import FAMILIES, save_tiny_model, tiny_engine
from tests.support.tiny_transform import tiny_basis

TOKENS = tuple(range(20, 90))
TENANT = TenantId("tenant")
QUESTION = "who built the lighthouse?"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def engine(folder: Path) -> Engine:
    return tiny_engine(folder)


def host_of(engine: Engine) -> ModelHost:
    return ModelHost(engine, TorchWorker(), ContextStore(1 << 24, 60.0), 8, 1 << 24)


def assembler(host: ModelHost, **changes: Any) -> PayloadAssembler:
    return PayloadAssembler(host, opening(host, TOKENS, **changes), TENANT)


def block(kind: BlockKind, codec_id: int, start: int, count: int, body: bytes) -> Block:
    (parsed,) = BlockParser().feed(encode_block(kind, codec_id, start, count, body))
    return parsed


def tokens_block(engine: Engine, tokens: tuple[int, ...] = TOKENS, start: int = 0) -> Block:
    body = encode_tokens(tokens, engine.vocabulary)
    return block(BlockKind.TOKENS, 0, start, len(tokens), body)


def indices_block(*positions: int) -> Block:
    body = encode_positions(np.array(positions, dtype=np.int64), len(TOKENS))
    return block(BlockKind.INDICES, 0, 0, len(positions), body)


def prefilled(engine: Engine) -> KvCache:
    cache = engine.new_cache()
    engine.prefill(cache, (*engine.prompt.head_tokens, *TOKENS))
    return cache


def kv_blocks(engine: Engine, mode: Mode, step: int = 16) -> list[Block]:
    """The whole prefix as an edge with this engine would send it."""
    codec, cache = codec_for_mode(mode), prefilled(engine)
    blocks: list[Block] = []
    for start in range(0, cache.length, step):
        kv = cache.tensor(start, min(start + step, cache.length))
        body = codec.encode(kv)
        blocks.append(block(BlockKind.KV, int(codec.codec_id), start, kv.shape[3], body))
    return blocks


def answer_of(engine: Engine, cache: KvCache) -> list[int]:
    tail = engine.prompt.tail_tokens(QUESTION)
    decoder = engine.decoder(cache, tail, SamplingOptions(max_tokens=12))
    tokens: list[int] = []
    while (token := decoder.step()) is not None:
        tokens.append(token.token_id)
    return tokens


def first_logits(engine: Engine, cache: KvCache) -> torch.Tensor:
    """Logits of the first answer token after the question."""
    inside: Any = engine  # what a decoder computes before it chooses
    return inside._logits_after(cache.fork(), engine.prompt.tail_tokens(QUESTION))


@pytest.mark.parametrize("family", FAMILIES)
async def test_bf16_blocks_give_bit_equal_logits_and_the_same_answer_where_both_ends_are_bf16(
    family: str, tmp_path: Path
) -> None:
    folder = save_tiny_model(tmp_path, family)
    edge = tiny_engine(folder, compute_dtype="bfloat16")
    cloud = tiny_engine(folder, compute_dtype="bfloat16")
    assembling = assembler(host_of(cloud), mode=Mode.KV_BF16)
    for each in kv_blocks(edge, Mode.KV_BF16):
        await assembling.add(each)
    arrived = (await assembling.prepare()).cache
    local = prefilled(edge)
    assert torch.equal(arrived.tensor(0, arrived.length), local.tensor(0, local.length))
    assert torch.equal(first_logits(cloud, arrived), first_logits(edge, local))
    assert answer_of(cloud, arrived) == answer_of(edge, local)


async def test_kv_cut_short_is_completed_from_tokens_and_said(engine: Engine) -> None:
    host = host_of(engine)
    assembling = assembler(host, mode=Mode.KV_BF16)
    blocks = kv_blocks(engine, Mode.KV_BF16)
    for each in blocks[:3]:
        await assembling.add(each)
    await assembling.add(tokens_block(engine))
    prepared = await assembling.prepare()
    missing = len(engine.prompt.head_tokens) + len(TOKENS) - 48
    assert f"last {missing} positions" in prepared.degradation
    assert prepared.cache.length == len(engine.prompt.head_tokens) + len(TOKENS)
    assert answer_of(engine, prepared.cache) == answer_of(engine, prefilled(engine))


async def test_kv_cut_short_without_tokens_is_an_unknown_context(engine: Engine) -> None:
    assembling = assembler(host_of(engine), mode=Mode.KV_BF16)
    await assembling.add(kv_blocks(engine, Mode.KV_BF16)[0])
    with pytest.raises(UnknownContextError):
        await assembling.prepare()


async def test_scout_with_everything_kept_prefills_the_whole_context(engine: Engine) -> None:
    host = host_of(engine)
    assembling = assembler(host)
    await assembling.add(tokens_block(engine))
    prepared = await assembling.prepare()
    assert prepared.execution is Execution.EVICT
    assert answer_of(engine, prepared.cache) == answer_of(engine, prefilled(engine))
    stored = host.contexts.get(TENANT, assembling.parameters.context_hash, 0.0)
    assert stored.tokens == TOKENS
    assert stored.cache is not None


async def test_second_session_needs_indices_alone(engine: Engine) -> None:
    host = host_of(engine)
    first = assembler(host)
    await first.add(tokens_block(engine))
    await first.prepare()
    for execution in Execution:
        again = assembler(host, retention=0.1, execution=execution)
        await again.add(indices_block(3, 9, 41))
        prepared = await again.prepare()
        assert prepared.execution is execution
        assert prepared.cache.length == len(engine.prompt.head_tokens) + 3


async def test_sparse_takes_the_kept_tokens_alone_and_stores_nothing(engine: Engine) -> None:
    host = host_of(engine)
    kept = (3, 9, 41)
    assembling = assembler(host, retention=0.1, execution=Execution.SPARSE)
    await assembling.add(indices_block(*kept))
    await assembling.add(tokens_block(engine, tuple(TOKENS[index] for index in kept)))
    prepared = await assembling.prepare()
    assert prepared.execution is Execution.SPARSE
    assert len(host.contexts) == 0


async def test_selected_kv_equals_what_eviction_keeps(engine: Engine) -> None:
    codec = codec_for_mode(Mode.KV_BF16)
    head = len(engine.prompt.head_tokens)
    kept = [*range(head), head + 3, head + 9, head + 41]
    gathered = engine.evict(prefilled(engine), kept)
    assembling = assembler(host_of(engine), mode=Mode.KV_SELECT, retention=0.1)
    await assembling.add(indices_block(3, 9, 41))
    for start in range(0, gathered.length, 7):
        kv = gathered.tensor(start, min(start + 7, gathered.length))
        body = codec.encode(kv)
        await assembling.add(
            block(BlockKind.KV_SELECTED, int(codec.codec_id), start, kv.shape[3], body)
        )
    arrived = (await assembling.prepare()).cache
    rounded = gathered.tensor(0, gathered.length).to(torch.bfloat16).float()
    assert torch.equal(arrived.tensor(0, arrived.length).float(), rounded)
    assert arrived.next_position == head + len(TOKENS)


async def test_transform_coded_blocks_become_the_cache_at_their_positions(engine: Engine) -> None:
    basis = tiny_basis(engine)
    host = replace(host_of(engine), transform=basis)
    local, head = prefilled(engine), len(engine.prompt.head_tokens)
    whole = assembler(host, mode=Mode.KV_INT4)
    for start in range(0, local.length, 16):
        positions = range(start, min(start + 16, local.length))
        await whole.add(transformed_block(basis, BlockKind.KV, local, start, positions))
    assert nearly_equal((await whole.prepare()).cache, local)
    kept = [*range(head), head + 3, head + 9, head + 41]
    gathered = engine.evict(local, kept)
    selected = assembler(host, mode=Mode.KV_SELECT, retention=0.1)
    await selected.add(indices_block(3, 9, 41))
    for start in range(0, gathered.length, 7):
        positions = kept[start : start + 7]
        await selected.add(
            transformed_block(basis, BlockKind.KV_SELECTED, gathered, start, positions)
        )
    assert nearly_equal((await selected.prepare()).cache, gathered)


def transformed_block(
    basis: TransformBasis, kind: BlockKind, cache: KvCache, start: int, positions: Sequence[int]
) -> Block:
    kv = cache.tensor(start, start + len(positions))
    body = TransformCodec.at(basis, 0, positions).encode(kv)
    return block(kind, int(TransformCodec.codec_id), start, len(positions), body)


def nearly_equal(arrived: KvCache, local: KvCache) -> bool:
    exact = local.tensor(0, local.length).float()
    error = arrived.tensor(0, arrived.length).float() - exact
    return bool(error.norm() < 0.02 * exact.norm())


async def test_transform_coded_blocks_need_the_same_basis(engine: Engine) -> None:
    basis = tiny_basis(engine)
    coded = transformed_block(basis, BlockKind.KV, prefilled(engine), 0, range(16))
    for other in (None, replace(basis, finest_step=2 * basis.finest_step)):
        assembling = assembler(replace(host_of(engine), transform=other), mode=Mode.KV_INT4)
        with pytest.raises(CodecError, match="basis"):
            await assembling.add(coded)


async def test_prepared_assembler_keeps_no_memory(engine: Engine) -> None:
    assembling = assembler(host_of(engine), mode=Mode.KV_BF16)
    for each in kv_blocks(engine, Mode.KV_BF16):
        await assembling.add(each)
    await assembling.prepare()
    assert not [
        value
        for name in assembling.__slots__
        if isinstance(value := getattr(assembling, name), KvCache) or value == list(TOKENS)
    ]


async def test_blocks_that_contradict_the_session_are_refused(engine: Engine) -> None:
    short = assembler(host_of(engine))
    await short.add(tokens_block(engine, TOKENS[:10]))
    with pytest.raises(PayloadError, match="of 70 token ids"):
        await short.prepare()
    with pytest.raises(PayloadError, match="starts at 5"):
        await assembler(host_of(engine)).add(tokens_block(engine, TOKENS[:10], start=5))
    with pytest.raises(PayloadError, match="More token ids"):
        await assembler(host_of(engine)).add(tokens_block(engine, TOKENS * 2))

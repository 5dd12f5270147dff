"""KV through the transform is as fine as the question looks at it, where that is known in time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from edge_agent.grading import Grading
from edge_agent.host import EdgeHost, ScoutModel
from edge_agent.planning import Question
from edge_agent.steering import Steering
from scout_core.codec.positions import decode_positions
from scout_core.codec.transform import TransformCodec
from scout_core.codec.transform_basis import TransformBasis
from scout_core.codec.transform_importance import grades_of
from scout_core.codec.transform_payload import PayloadHead
from scout_core.control.coding import KvCoding
from scout_core.daemon.models import describe_model
from scout_core.engine import Engine
from scout_core.engine.kv_cache import KvCache
from scout_core.engine.scoring import AttentionScorer, ScoredContext, ScoutContext
from scout_core.modes import Mode
from scout_core.protocol.blocks import Block, BlockKind
from tests.support.tiny_models import save_tiny_model, tiny_engine
from tests.support.tiny_transform import tiny_basis
from tests.unit.edge.test_edge_planning import host_with, on_link, plan, question, view_of
from tests.unit.edge.test_edge_refining import blocks_of

SLOW = 5e3
FAST = 5e9


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return tiny_engine(save_tiny_model(tmp_path_factory.mktemp("grading")))


@pytest.fixture(scope="module")
def basis(engine: Engine) -> TransformBasis:
    return tiny_basis(engine)


async def asked_of(
    host: EdgeHost, mode: Mode, retention: float | None = None, *, held: bool = True
) -> Question:
    asked = question(host, mode=mode, retention=retention)
    if held:
        await host.prefill_ahead(asked.key, asked.stored)
    return asked


def steering_of(host: EdgeHost, asked: Question, basis: TransformBasis) -> Steering:
    assert host.replica is not None
    host.transform = basis
    view = view_of(host.replica, model=describe_model(host.replica, basis.digest))
    return Steering(host, view, asked, plan(host, asked, view), lambda: 0, 0.02)


def importance_of(host: EdgeHost, asked: Question) -> np.ndarray:
    """As the scorer has it."""
    assert host.replica_scorer is not None
    context = ScoutContext(asked.stored.text, asked.stored.tokens)
    scored = host.replica_scorer.scorer.score(
        context, asked.parameters.question, asked.stored.cache
    )
    assert scored.importance is not None
    return scored.importance.numpy()


def heads_of(blocks: list[Block], kind: BlockKind) -> list[PayloadHead]:
    return [
        PayloadHead.parsed(memoryview(block.body), block.header.count)
        for block in blocks
        if block.header.kind is kind
    ]


def sent_grades(blocks: list[Block], kind: BlockKind) -> list[int]:
    grades = [head.grades for head in heads_of(blocks, kind)]
    return [int(grade) for part in grades if part is not None for grade in part]


async def test_a_held_cache_is_sent_as_fine_as_the_question_looks_at_it(
    engine: Engine, basis: TransformBasis
) -> None:
    host = on_link(host_with(engine), SLOW)
    steering = steering_of(host, await asked_of(host, Mode.KV_INT4), basis)
    assert steering.plan.offer.coding is KvCoding.GRADED
    blocks, _, source = await blocks_of(steering)
    wanted = grades_of(importance_of(host, steering.question)).tolist()
    head = len(engine.prompt.head_tokens)
    assert len(set(wanted)) > 1
    assert sent_grades(blocks, BlockKind.KV)[head:] == wanted
    assert {part.level for part in heads_of(blocks, BlockKind.KV)} == {basis.graded_level}
    assert source.times.kv_codecs == ["transform_graded"]
    assert source.times.score_s > 0


async def test_what_is_sent_decodes_to_the_cache_by_the_basis_alone(
    engine: Engine, basis: TransformBasis
) -> None:
    host = on_link(host_with(engine), SLOW)
    asked = await asked_of(host, Mode.KV_INT4)
    blocks, _, _ = await blocks_of(steering_of(host, asked, basis))
    assert asked.stored.cache is not None
    for block in blocks:
        start, count = block.header.start, block.header.count
        exact = asked.stored.cache.tensor(start, start + count).float()
        codec = TransformCodec.at(basis, basis.int4_level, range(start, start + count))
        decoded = codec.decode(block.body, engine.geometry, count).float()
        assert float((decoded - exact).square().mean()) < 0.05 * float(exact.square().mean())


async def test_a_cache_that_is_still_computed_goes_as_it_comes(
    engine: Engine, basis: TransformBasis
) -> None:
    host = on_link(host_with(engine), SLOW)
    steering = steering_of(host, await asked_of(host, Mode.KV_INT4, held=False), basis)
    assert steering.plan.offer.coding is KvCoding.TRANSFORM
    blocks, _, source = await blocks_of(steering)
    assert sent_grades(blocks, BlockKind.KV) == []
    assert {part.level for part in heads_of(blocks, BlockKind.KV)} == {basis.int4_level}
    assert source.times.kv_codecs == ["transform"]
    assert source.times.score_s == 0.0


async def test_on_a_fast_link_nobody_waits_for_grades(
    engine: Engine, basis: TransformBasis
) -> None:
    host = on_link(host_with(engine), FAST)
    _, _, source = await blocks_of(steering_of(host, await asked_of(host, Mode.KV_INT4), basis))
    assert source.times.score_s == 0.0
    assert source.times.kv_codecs == ["int4_groups"]


async def test_selected_positions_are_graded_among_themselves(
    engine: Engine, basis: TransformBasis
) -> None:
    host = on_link(host_with(engine), SLOW)
    asked = await asked_of(host, Mode.KV_SELECT, 0.5)
    blocks, _, source = await blocks_of(steering_of(host, asked, basis))
    indices = next(block for block in blocks if block.header.kind is BlockKind.INDICES)
    kept = decode_positions(indices.body, len(asked.stored.tokens), indices.header.count)
    wanted = grades_of(importance_of(host, asked)[kept]).tolist()
    head = len(engine.prompt.head_tokens)
    assert sent_grades(blocks, BlockKind.KV_SELECTED)[head:] == wanted
    assert source.times.kv_codecs == ["transform_graded"]


class SilentScorer(AttentionScorer):
    """Scores, and does not tell what its own KV is worth."""

    def score(
        self, context: ScoutContext, question: str, prefix: KvCache | None = None
    ) -> ScoredContext:
        return replace(super().score(context, question, prefix), importance=None)


async def test_a_reading_that_tells_nothing_leaves_all_positions_alike(
    engine: Engine, basis: TransformBasis
) -> None:
    host = on_link(host_with(engine), SLOW)
    host.replica_scorer = ScoutModel(engine, SilentScorer(engine, None), "silent")
    steering = steering_of(host, await asked_of(host, Mode.KV_INT4), basis)
    blocks, _, source = await blocks_of(steering)
    assert sent_grades(blocks, BlockKind.KV) == []
    assert source.times.kv_codecs == ["transform"]
    assert steering.grading.is_settled
    assert steering.grading.wait_s is None


async def test_grades_are_there_at_once_when_the_question_has_been_read(engine: Engine) -> None:
    host = host_with(engine)
    asked = await asked_of(host, Mode.KV_INT4)
    grading = Grading(host, asked)
    waited = grading.wait_s
    assert waited is not None
    assert waited > 0
    assert grading.of(range(4)) is None
    assert not grading.is_settled
    grading.note(torch.rand(len(asked.stored.tokens)))
    assert grading.wait_s == 0.0
    assert grading.of(range(4)) is not None
    alone = host_with(engine)
    assert Grading(alone, await asked_of(alone, Mode.KV_INT4, held=False)).wait_s is None

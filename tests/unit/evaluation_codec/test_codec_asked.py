"""Answers over caches that are graded by their question, and the level that this allows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from scout_core.codec.transform_basis import TransformBasis
from scout_core.engine import Engine
from scout_core.engine.loading import load_model
from scout_core.engine.options import EngineOptions
from scout_core.evaluation.codec_asked import (
    AskedContext,
    AskedWay,
    asked_contexts,
    asked_rows,
    int4_way,
    transform_way,
)
from scout_core.evaluation.codec_coded import Coded
from scout_core.evaluation.codec_levels import (
    GRADED_CANDIDATES,
    INT4_SHARE,
    with_graded_level,
)
from scout_core.evaluation.codec_probe import CacheProbe
from scout_core.evaluation.dataset import Example
from tests.support.testbed import CONTEXT
from tests.support.tiny_models import save_tiny_model, tiny_engine
from tests.support.tiny_transform import tiny_basis

LEVELS = (6, 10)


@dataclass(frozen=True)
class Tiny:
    engine: Engine
    probe: CacheProbe
    basis: TransformBasis


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    folder: Path = save_tiny_model(tmp_path_factory.mktemp("asked"))
    engine = tiny_engine(folder)
    model = load_model(EngineOptions(str(folder)), lambda _stage, _fraction: None)
    return Tiny(engine, CacheProbe(model), tiny_basis(engine))


def example(context: str, question: str, *answers: str) -> Example:
    return Example(context, question, answers, "group", "test", question)


EXAMPLES = (
    example(CONTEXT + "It is painted white.", "What colour is it?", "white"),
    example(CONTEXT, "Who built it?", "an engineer"),
    example(CONTEXT, "How far does the beam reach?", "twenty two miles"),
    example(CONTEXT, "Who lit the lamp?"),
    example("Too short.", "How short?", "too short"),
)


def contexts_of(tiny: Tiny, short: int = 9) -> list[AskedContext]:
    (contexts,) = asked_contexts(tiny.engine, EXAMPLES, short=short, long=9)
    return contexts


def say_nothing(_message: str) -> None:
    pass


def test_contexts_with_a_second_question_come_first_and_short_ones_are_left_out(
    tiny: Tiny,
) -> None:
    pair, single = contexts_of(tiny)
    tail = tiny.engine.prompt.tail_tokens
    assert pair.other is not None
    assert [pair.asked.question, pair.other.question] == [
        tail("Who built it?"),
        tail("How far does the beam reach?"),
    ]
    assert single.other is None
    assert single.asked.answer == tiny.engine.prompt.plain_tokens("white")
    assert contexts_of(tiny, short=1) == [pair]
    assert asked_contexts(tiny.engine, EXAMPLES[-1:], short=9, long=9) == []


def test_an_exact_cache_costs_no_answer_anything(tiny: Tiny) -> None:
    exact = AskedWay("exact", lambda kv, _importance: Coded(kv, kv.nbytes))
    (row,) = asked_rows(tiny.probe, tiny.engine, contexts_of(tiny), [exact], say_nothing)
    assert (row.ratio, row.kl, row.other_kl) == (1.0, 0.0, 0.0)
    assert (row.contexts, row.others) == (2, 1)


def test_ways_are_given_the_importance_of_the_contexts_tokens(tiny: Tiny) -> None:
    given: list[torch.Tensor] = []

    def code(kv: torch.Tensor, importance: torch.Tensor) -> Coded:
        given.append(importance)
        return Coded(kv, kv.nbytes)

    contexts = contexts_of(tiny)
    asked_rows(tiny.probe, tiny.engine, contexts, [AskedWay("seen", code)], say_nothing)
    assert [part.numel() for part in given] == [len(context.tokens) for context in contexts]
    assert all(float(part.min()) > 0 for part in given)


def test_coarser_levels_weigh_less_and_cost_more(tiny: Tiny) -> None:
    for graded in (False, True):
        ways = [transform_way(tiny.basis, level, graded=graded) for level in LEVELS]
        fine, coarse = asked_rows(tiny.probe, tiny.engine, contexts_of(tiny), ways, say_nothing)
        assert fine.ratio < coarse.ratio
        assert fine.kl < coarse.kl
        assert fine.name == f"transform_{'graded_' if graded else ''}06"


def test_the_graded_level_is_the_coarsest_that_costs_answers_a_share_of_int4(
    tiny: Tiny,
) -> None:
    basis = replace(tiny.basis, int4_level=6)
    contexts = contexts_of(tiny)
    advised = with_graded_level(basis, tiny.probe, tiny.engine, [contexts], say_nothing)
    levels = range(6, 6 + GRADED_CANDIDATES)
    ways = [int4_way(), *(transform_way(basis, level, graded=True) for level in levels)]
    int4, *rows = asked_rows(tiny.probe, tiny.engine, contexts, ways, say_nothing)
    good = [
        level for level, row in zip(levels, rows, strict=True) if row.kl <= INT4_SHARE * int4.kl
    ]
    assert 0 < len(good) < len(levels)
    assert advised.graded_level == max(good)
    assert advised.digest == basis.digest
    assert with_graded_level(basis, tiny.probe, tiny.engine, [], say_nothing).graded_level == 6

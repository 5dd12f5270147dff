"""F1 over decoded caches, with a tiny model whose own answers are the right ones."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
import torch

from scout_core.engine import Engine
from scout_core.evaluation.codec_answers import MAX_ANSWER_TOKENS, answer_rows
from scout_core.evaluation.codec_coded import Coded, Contender, ExactCache
from scout_core.evaluation.codec_study import QualityRow, with_answers
from scout_core.evaluation.dataset import Example
from scout_core.evaluation.quality_answers import continued_tails, prefill
from scout_core.evaluation.quality_models import batched_model
from tests.support.tiny_models import CORPUS, save_tiny_model, tiny_engine

QUESTIONS = ("Who built the lighthouse?", "What was converted to electricity?")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return tiny_engine(save_tiny_model(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module")
def examples(engine: Engine) -> list[Example]:
    """Questions whose gold answers are what the model says with an exact cache."""
    asked = [
        Example(context, question, ("",), "group", "tiny", f"{context[:3]}{question[:3]}")
        for context in CORPUS[:2]
        for question in QUESTIONS
    ]
    return [replace(example, answers=(_said(engine, example),)) for example in asked]


def _said(engine: Engine, example: Example) -> str:
    ids = [*engine.prompt.head_tokens, *engine.prompt.context_tokens(example.context)]
    model = batched_model(engine)
    with torch.no_grad():
        prefix = prefill(model, [ids])
    prefix.cache.keys[:] = [key.bfloat16().float() for key in prefix.cache.keys]
    prefix.cache.values[:] = [value.bfloat16().float() for value in prefix.cache.values]
    tail = engine.prompt.tail_tokens(example.question)
    return engine.text(continued_tails(model, prefix, [tail], [len(ids)], MAX_ANSWER_TOKENS)[0])


def _exact(cache: ExactCache) -> Coded:
    return Coded(cache.kv, cache.kv.nbytes / 2)


def _destroying(cache: ExactCache) -> Coded:
    noise = torch.randn(cache.kv.shape, generator=torch.Generator().manual_seed(1))
    return Coded((20 * noise).bfloat16(), 1.0)


EXACT = Contender("exact", "exact", "ours", _exact)
DESTROYING = Contender("destroying", "destroying", "peer", _destroying)


def _silent(_message: str) -> None:
    """Progress is of no interest here."""


def test_an_exact_cache_answers_as_the_reference_does(
    engine: Engine, examples: list[Example]
) -> None:
    (row,) = answer_rows(engine, examples, [EXACT], _silent)
    assert (row.f1_ratio, row.p_value) == (1.0, 1.0)
    assert row.exact_f1 > 0.9
    assert row.n == len(examples)
    assert row.ratio == 2.0


def test_a_destroyed_cache_answers_worse(engine: Engine, examples: list[Example]) -> None:
    exact, destroyed = answer_rows(engine, examples, [EXACT, DESTROYING], _silent)
    assert destroyed.f1 < exact.f1
    assert destroyed.f1_ratio < 1


def test_contexts_are_coded_at_their_places_behind_the_head(
    engine: Engine, examples: list[Example]
) -> None:
    seen: list[tuple[int, int]] = []

    def noting(cache: ExactCache) -> Coded:
        seen.append((cache.kv.shape[3], cache.first))
        return Coded(cache.kv, 1.0)

    answer_rows(engine, examples, [Contender("noting", "noting", "ours", noting)], _silent)
    lengths = sorted(len(engine.prompt.context_tokens(example.context)) for example in examples)
    head = len(engine.prompt.head_tokens)
    assert seen == [(length, head) for length in lengths]


def test_contenders_that_need_it_get_the_attention_of_the_question(
    engine: Engine, examples: list[Example]
) -> None:
    seen: list[ExactCache] = []

    def noting(cache: ExactCache) -> Coded:
        seen.append(cache)
        return Coded(cache.kv, 1.0)

    blind = Contender("noting", "noting", "ours", noting)
    answer_rows(engine, examples, [blind], _silent)
    assert all(cache.attention is None for cache in seen)
    seen.clear()
    answer_rows(engine, examples, [replace(blind, needs_attention=True)], _silent)
    weights = [cache.attention for cache in seen if cache.attention is not None]
    assert [part.shape[0] for part in weights] == [cache.kv.shape[3] for cache in seen]
    pairs = [(a, b) for a, b in combinations(weights, 2) if a.shape == b.shape]
    assert pairs
    assert all((a > 0).all() and (a != b).any() for a, b in pairs)


def test_a_model_that_answers_nothing_has_no_ratios(
    engine: Engine, examples: list[Example]
) -> None:
    wrong = [replace(example, answers=("xylophone 77",)) for example in examples]
    assert answer_rows(engine, wrong, [EXACT], _silent) == ()


def test_quality_rows_take_the_ratio_of_their_own_codec(
    engine: Engine, examples: list[Example]
) -> None:
    answers = answer_rows(engine, examples, [EXACT], _silent)
    plain = QualityRow("exact", "exact", "ours", "tiny", 9, 1, 1, 2.0, 8.0, 0.1, 1.0, None)
    asked, other = with_answers([plain, replace(plain, codec="other")], answers)
    assert asked.f1_ratio == 1.0
    assert other.f1_ratio is None

"""The question's attention equals the attention that eager transformers reports."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from scout_core.engine import Engine, SamplingOptions
from scout_core.engine.attention import AttentionPass
from scout_core.engine.question_rows import QuestionRows
from tests.support.tiny_models import (
    HEADS,
    LAYERS,
    random_tokens,
    reference_model,
    tiny_engine,
)

PREFIX_TOKENS = 37
TAIL_TOKENS = 13


def test_question_attention_equals_eager_attention(
    family_engine: Engine, family_folder: Path
) -> None:
    prefix = random_tokens(family_engine, PREFIX_TOKENS)
    tail = random_tokens(family_engine, TAIL_TOKENS, 1)
    cache = family_engine.new_cache()
    family_engine.prefill(cache, prefix)
    ours = family_engine.question_attention(cache, tail)
    with torch.no_grad():
        output = reference_model(family_folder)(
            input_ids=torch.tensor([prefix + tail]), output_attentions=True
        )
    rows = torch.stack(output.attentions)[:, 0, :, PREFIX_TOKENS:, :PREFIX_TOKENS]
    assert ours.shape == (LAYERS, HEADS, PREFIX_TOKENS)
    theirs = rows.mean(dim=2)
    hidden = ours.isnan()
    assert bool((theirs[hidden] == 0).all())  # by a window, from every row
    torch.testing.assert_close(ours[~hidden], theirs[~hidden], atol=1e-5, rtol=1e-4)


def test_asking_changes_neither_the_cache_nor_the_answer(llama: Engine) -> None:
    prefix, tail = random_tokens(llama, PREFIX_TOKENS), random_tokens(llama, TAIL_TOKENS, 1)
    cache = llama.new_cache()
    llama.prefill(cache, prefix)
    before = cache.tensor(0, PREFIX_TOKENS).clone()

    def logits() -> torch.Tensor:
        decoder = llama.decoder(cache, tail, SamplingOptions(max_tokens=1))
        decoder.step()
        assert decoder.last_logits is not None
        return decoder.last_logits

    alone = logits()
    llama.question_attention(cache, tail)
    assert cache.length == cache.next_position == PREFIX_TOKENS
    assert torch.equal(cache.tensor(0, PREFIX_TOKENS), before)
    assert torch.equal(logits(), alone)


def test_the_first_layers_of_a_cut_model_attend_as_in_the_whole_model(llama_folder: Path) -> None:
    whole, cut = tiny_engine(llama_folder), tiny_engine(llama_folder, layers=2)
    prefix, tail = random_tokens(whole, PREFIX_TOKENS), random_tokens(whole, TAIL_TOKENS, 1)
    found: list[torch.Tensor] = []
    for engine in (whole, cut):
        cache = engine.new_cache()
        engine.prefill(cache, prefix)
        found.append(engine.question_attention(cache, tail))
    assert found[1].shape[0] == 2
    torch.testing.assert_close(found[1], found[0][:2])


def test_rows_in_small_parts_sum_to_the_same_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(4, 9, 8, generator=generator)
    key = torch.randn(2, 20, 8, generator=generator)
    current = AttentionPass(torch.arange(11, 20), torch.arange(20), torch.float32)

    def mean() -> torch.Tensor:
        rows = QuestionRows(1, 4, 11, torch.device("cpu"))
        rows.observe(0, query, key, 0.35, current.mask(None))
        rows.count(9)
        return rows.mean

    at_once = mean()
    monkeypatch.setattr("scout_core.engine.question_rows.MAX_SCORES", 1)
    torch.testing.assert_close(mean(), at_once)


@pytest.mark.parametrize("window", [None, 3])
def test_a_row_sees_columns_at_or_before_its_position_and_inside_the_window(
    window: int | None,
) -> None:
    rows, columns = torch.tensor([7, 9]), torch.tensor([0, 4, 6, 7, 9])
    mask = AttentionPass(rows, columns, torch.float32).mask(window)
    assert mask is not None
    seen = [[int(c) for c, bias in zip(columns, row, strict=True) if bias == 0] for row in mask]
    assert seen == ([[0, 4, 6, 7], [0, 4, 6, 7, 9]] if window is None else [[6, 7], [7, 9]])

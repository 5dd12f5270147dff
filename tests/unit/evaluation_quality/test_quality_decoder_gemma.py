"""The batched decoder computes Gemma 3 as transformers does, and refuses what its windows hide."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from scout_core.engine import Engine, SamplingOptions
from scout_core.errors import UnsupportedModelError
from scout_core.evaluation.quality_answers import (
    Model,
    continued_tails,
    evicted,
    prefill,
    question_attention,
)
from scout_core.evaluation.quality_decoder import Pass, hidden_states, logits_of
from scout_core.evaluation.quality_models import batched_model
from tests.support.tiny_models import (
    SLIDING,
    SLIDING_WINDOW,
    reference_model,
    save_tiny_model,
    tiny_engine,
)

ROW, TAIL = [5, 9, 40, 17], [7, 31]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("gemma"), SLIDING)


@pytest.fixture(scope="module")
def engine(folder: Path) -> Engine:
    return tiny_engine(folder)


@pytest.fixture(scope="module")
def model(engine: Engine) -> Model:
    with torch.no_grad():
        return batched_model(engine)


def test_logits_are_those_of_transformers(folder: Path, model: Model) -> None:
    ids = torch.tensor([[*ROW, *TAIL, 3, 8]])
    run = Pass(torch.arange(ids.shape[1])[None])
    with torch.no_grad():
        out, _ = hidden_states(model.weights, model.shape, model.weights.embedding[ids], run)
        wanted = reference_model(folder)(ids).logits
        torch.testing.assert_close(
            logits_of(model.weights, model.shape, out), wanted, atol=1e-4, rtol=1e-4
        )


def test_evicted_answers_and_attention_are_the_engines(engine: Engine, model: Model) -> None:
    kept = [0, 2, 3]
    cache = engine.new_cache()
    engine.prefill(cache, ROW)
    decoder = engine.decoder(engine.evict(cache, kept), TAIL, SamplingOptions(max_tokens=2))
    theirs = [token.token_id for token in iter(decoder.step, None)]
    prefix = prefill(model, [ROW])
    assert continued_tails(model, evicted(prefix, [kept]), [TAIL], [len(ROW)], 2) == [theirs]
    attention = question_attention(model, prefix, [TAIL], [len(ROW)])[0]
    torch.testing.assert_close(
        attention, engine.question_attention(cache, TAIL), atol=1e-5, rtol=1e-4
    )


def test_a_prompt_that_a_window_would_cut_is_refused(model: Model) -> None:
    prefill(model, [list(range(2, 2 + SLIDING_WINDOW))])
    with pytest.raises(UnsupportedModelError, match="shorter contexts"):
        prefill(model, [list(range(2, 3 + SLIDING_WINDOW))])

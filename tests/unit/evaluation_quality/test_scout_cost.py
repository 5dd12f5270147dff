"""What a scout request costs: ratios of the same run, of the tokens that the scout runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from scout_core.engine.scouts import scorer_for
from scout_core.engine.trained_scout import PASS_TOKENS, TrainedScorer
from scout_core.evaluation import scout_cost
from scout_core.evaluation.scout_cost import scout_costs
from scout_core.selection.lexical import FEATURES
from scout_core.selection.readout import ReadoutShape, fresh_readout
from tests.support.tiny_models import HEADS, save_tiny_model, tiny_engine

TEXT = "The lighthouse was built of granite by Anna Holm. " * 4


def test_ratios_are_of_the_same_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scout_cost, "LENGTHS", (20, 40, 9_000))
    monkeypatch.setattr(scout_cost, "ROUNDS", 2)
    folder = save_tiny_model(tmp_path)
    cloud, scout = tiny_engine(folder), tiny_engine(folder, layers=2)
    shape = ReadoutShape(2 * 2 * HEADS + 2 * len(FEATURES), scout.hidden_size, 3, 4)
    trained = TrainedScorer(scout, fresh_readout(shape, seed=0, device=torch.device("cpu")))
    for scorer in (scorer_for(scout, None), trained):
        rows = scout_costs(cloud, scout, scorer, TEXT, "Who built it?")
        assert [row.context_tokens for row in rows] == [20, 40]
        for row in rows:
            assert row.scoring_share == row.request_s / row.scout_prefill_s - 1
            assert row.request_share == row.request_s / row.cloud_prefill_s


def test_passes_of_another_size_give_the_same_states(tmp_path: Path) -> None:
    engine = tiny_engine(save_tiny_model(tmp_path))
    tokens = engine.prompt.context_tokens(TEXT)
    assert engine.block_tokens < len(tokens) < PASS_TOKENS
    aligned = engine.prefill_states(engine.new_cache(), tokens)
    cache = engine.new_cache()
    whole = engine.prefill_states(cache, tokens, PASS_TOKENS)
    assert torch.allclose(aligned, whole, atol=1e-4)
    assert cache.length == len(tokens)

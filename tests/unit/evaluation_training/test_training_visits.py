"""Training visits: options, variants, the scores of a chooser, and how long a run goes on."""

from __future__ import annotations

import math
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from scout_core.evaluation.quality_decoder import DecoderShape
from scout_core.evaluation.training import cloud_visit, scout_visit
from scout_core.evaluation.training.adapter import Base
from scout_core.evaluation.training.cloud_rows import EVICT_LIMIT
from scout_core.evaluation.training.corpus import Item
from scout_core.evaluation.training.prompts import Prompter
from scout_core.evaluation.training.scout import Scout
from scout_core.evaluation.training.trainer import Schedule
from scout_core.evaluation.training.visit import Visit
from scout_core.selection.lexical import FEATURES
from scout_core.selection.readout import ReadoutShape, fresh_readout

CPU = torch.device("cpu")


def item(length: int) -> Item:
    table = np.random.default_rng(length).random((length, len(FEATURES))).astype(np.float16)
    return Item((2,) * length, "where", ("sea",), (), (), table, "s", "g")


@pytest.fixture
def visit(tmp_path: Path) -> Visit:
    words = ["[UNK]", "where"]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=words[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    base = Base({}, torch.zeros(4, 8), torch.ones(8), torch.float32)
    shape = DecoderShape(1, 2, 1, 4, 1e4, 1e-5)
    pool = ProcessPoolExecutor(1)
    return Visit(base, shape, Prompter(tokenizer), tmp_path, tmp_path, pool, 0, {})


@pytest.mark.parametrize("name", ["chosen", "chosen-more"])
def test_a_variant_of_a_scouts_selections_needs_the_scout(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["cloud_visit", "base", "data", "out", name, "--synthetic", "made.jsonl"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit):
        cloud_visit.main()
    assert "--chooser FOLDER" in capsys.readouterr().err


def test_a_scout_of_words_alone_does_not_go_on_from_another(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["scout_visit", "base", "data", "out", "lexical"]
    files = ["--cloud", "c", "--synthetic", "s", "--start", "folder"]
    monkeypatch.setattr(sys, "argv", [*arguments, *files])
    with pytest.raises(SystemExit):
        scout_visit.main()
    assert "leave --start out" in capsys.readouterr().err


def test_shares_leave_room_for_human_questions() -> None:
    for variant in cloud_visit.VARIANTS.values():
        assert variant.synthetic_share < 0.8
        assert variant.sparse_share + variant.evict_share < 0.7


def test_a_scout_scores_every_item_that_can_be_evicted_once(visit: Visit) -> None:
    readout = fresh_readout(ReadoutShape(2 * len(FEATURES), 8, 0, 4), seed=0, device=CPU)
    short, other, long = item(12), item(30), item(EVICT_LIMIT + 1)
    found = cloud_visit.scores_by(visit, Scout(None, readout, 1), [short, other, long, short])
    assert set(found) == {id(short), id(other)}
    assert [found[id(one)].shape for one in (short, other)] == [(12,), (30,)]
    assert found[id(other)].dtype == np.float16
    assert float(found[id(other)].std()) > 0


@pytest.mark.parametrize("steps", [cloud_visit.STEPS, scout_visit.STEPS])
def test_a_run_of_five_minutes_decays_with_its_seconds(steps: int) -> None:
    schedule = Schedule(steps, 1e-3, budget_s=300.0)
    quick = 300 / 0.06
    assert schedule.progress(round(quick / 2), 150.0) == 0.5
    assert schedule.progress(round(quick) - 1, 299.9) < 1.0
    assert schedule.progress(round(quick), 300.0) == 1.0
    middle = schedule.rate(schedule.progress(2000, 150.0), 2000)
    assert math.isclose(middle, 1e-3 * (0.02 + 0.98 / 2))

"""Training questions made of text, and averages of adapters."""

from __future__ import annotations

import json
import random
from pathlib import Path

import torch

from scout_core.evaluation.dataset import Example
from scout_core.evaluation.quality_decoder import PROJECTIONS
from scout_core.evaluation.training.adapter import LowRank, averaged
from scout_core.evaluation.training.corpus import Splits
from scout_core.evaluation.training.long_mix import supporting_examples
from scout_core.evaluation.training.recurring_spans import (
    BLANK,
    questions_of,
    recurring_span_examples,
)

PASSAGE = (
    "The old lighthouse stands on Marrow Point above the northern harbour. "
    "It was built in 1874 by the engineer Ida Quill. "
    "In 1874 the harbour had only eleven fishing boats. "
    "Visitors reach Marrow Point on foot along the eastern wall."
)


def test_a_blank_is_a_span_that_the_rest_of_the_passage_still_holds() -> None:
    found = questions_of(PASSAGE, "g", random.Random(0))
    assert found
    for example in found:
        assert BLANK in example.question
        assert example.answers[0] in example.context
        assert example.answers[0] not in example.question
        assert example.question.replace(BLANK, example.answers[0]) not in example.context
    assert {example.answers[0] for example in found} == {"1874", "Marrow Point"}


def test_a_capital_that_only_begins_a_sentence_is_no_name() -> None:
    text = "Their house was small and old. Their garden was much larger than that."
    assert questions_of(text, "g", random.Random(0)) == []


def test_questions_from_text_are_the_same_for_a_seed_and_no_more_than_asked() -> None:
    passages = [(f"g{index}", PASSAGE) for index in range(6)]
    first = recurring_span_examples(passages, 5, 3)
    assert first == recurring_span_examples(passages, 5, 3)
    assert len(first) == 5


def test_supporting_questions_keep_every_gold_paragraph(tmp_path: Path) -> None:
    documents = [f"Document (Title: T{i}) text number {i} of the long context." for i in range(6)]
    record = {
        "id": "q1",
        "context": "\n\n".join(documents),
        "question": "Which?",
        "answers": ["number 2"],
        "gold_titles": ["T2", "T4"],
    }
    (tmp_path / "qa_long").mkdir()
    (tmp_path / "qa_long" / "dev.jsonl").write_text(json.dumps(record), encoding="utf-8")
    row = Example("\n\n".join(documents), "Which?", ("number 2",), "g", "musique", "q1")
    (made,) = supporting_examples(tmp_path, Splits((row,), (), ()), 0)
    assert "T2)" in made.context
    assert "T4)" in made.context
    assert made.context.count("Document (Title:") <= 4
    assert made.answers == row.answers


def _adapter(seed: int, rank: int = 3) -> LowRank:
    generator = torch.Generator().manual_seed(seed)
    down = {name: torch.randn(2, rank, 8, generator=generator) for name in PROJECTIONS}
    up = {name: torch.randn(2, 6, rank, generator=generator) for name in PROJECTIONS}
    return LowRank(down, up, rank, 2.0 * rank)


def _update(adapter: LowRank, name: str) -> torch.Tensor:
    return adapter.up[name] @ adapter.down[name] * (adapter.alpha / adapter.rank)


def test_the_average_of_one_adapter_with_itself_is_that_adapter() -> None:
    one = _adapter(1)
    mean = averaged([one, one])
    for name in PROJECTIONS:
        assert torch.allclose(_update(mean, name), _update(one, name), atol=1e-4)


def test_an_average_is_the_best_approximation_of_the_mean_update_at_its_rank() -> None:
    one, two = _adapter(1), _adapter(2)
    mean = averaged([one, two])
    for name in PROJECTIONS:
        wanted = (_update(one, name) + _update(two, name)) / 2
        missed = (_update(mean, name) - wanted).norm(dim=(1, 2))
        spectrum = torch.linalg.svdvals(wanted)
        least = spectrum[:, mean.rank :].square().sum(1).sqrt()
        assert torch.allclose(missed, least, atol=1e-3)
        assert mean.up[name].shape[2] == 3

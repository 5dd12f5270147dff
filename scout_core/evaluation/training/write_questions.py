"""Write questions about unlabelled passages and keep the consistent ones (synthetic data).

    python -m scout_core.evaluation.training.write_questions BASE DATA OUT

BASE is a converted model folder, DATA the development data. OUT receives ``synthetic.jsonl.gz``
and ``written.json`` (counts). Trains a question writer and, unless ``--judge`` names an adapter, a
first cloud adapter as the judge. ``--rounds`` writes that many times the usual number.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from scout_core.evaluation.dataset import Example
from scout_core.evaluation.training.adapter import LowRank, fresh, load_adapter
from scout_core.evaluation.training.base_weights import ready_model
from scout_core.evaluation.training.cloud import Feeder, Mixture
from scout_core.evaluation.training.cloud_rows import Selections
from scout_core.evaluation.training.corpus import (
    Item,
    Splits,
    long_splits,
    short_splits,
    writing_passages,
)
from scout_core.evaluation.training.synthetic import consistent, writing_row, written
from scout_core.evaluation.training.trainer import Schedule
from scout_core.evaluation.training.visit import (
    ALPHA,
    RANK,
    Visit,
    feeder_of,
    measure,
    note,
    open_visit,
    train_cloud,
)


def save_examples(path: Path, examples: Sequence[Example]) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        for example in examples:
            row = {
                "context": example.context,
                "question": example.question,
                "answers": list(example.answers),
                "group": example.group,
                "source": example.source,
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def synthetic_examples(
    visit: Visit, judge: LowRank, human: Sequence[Item], budget_s: float, rounds: int
) -> list[Example]:
    """Write questions and keep the consistent ones."""
    writer = fresh(visit.base, layers=visit.shape.layers, rank=RANK, alpha=ALPHA, seed=3)
    generator = random.Random(2)  # noqa: S311 - a reproducible draw, not a secret
    mixture = replace(Mixture(), chat_rows=0, long_share=0.0)
    feeder = Feeder(
        [(1.0, [item for item in human if item.answers])],
        [],
        [],
        mixture,
        lambda item, source: writing_row(item, visit.prompter, source),
        generator,
        [],
    )
    schedule = Schedule(steps=100_000, learning_rate=1e-3, budget_s=budget_s)
    writer = train_cloud(visit, feeder, schedule, writer)
    short, long = short_splits(visit.data), long_splits(visit.data)
    passages = writing_passages(visit.data, short, long, 0)
    model = ready_model(visit.base, visit.shape, writer, visit.stop)
    raw = written(model, visit.prompter, passages * rounds, 5)
    note(f"{len(raw)} questions written; sample: {[(e.question, e.answers) for e in raw[:6]]}")
    kept = consistent(ready_model(visit.base, visit.shape, judge, visit.stop), visit.prompter, raw)
    visit.figures["synthetic"] = {"written": len(raw), "kept": len(kept)}
    note(f"{len(kept)} kept")
    save_examples(visit.out / "synthetic.jsonl.gz", kept)
    return kept


def trained_judge(visit: Visit, short: Splits, long: Splits, budget_s: float) -> LowRank:
    """A first cloud adapter, from human questions alone."""
    human = visit.items(short.train)
    answerable = [item for item in human if item.answers]
    refused = [item for item in human if not item.answers]
    judge = fresh(visit.base, layers=visit.shape.layers, rank=RANK, alpha=ALPHA, seed=1)
    mixture = replace(Mixture(), selections=Selections(0.15))
    feeder = feeder_of(
        visit, [(0.86, answerable), (0.14, refused)], visit.items(long.train), [], mixture
    )
    return train_cloud(visit, feeder, Schedule(100_000, 1e-3, budget_s=budget_s), judge)


def run(visit: Visit, options: argparse.Namespace) -> None:
    """Judge, writer, questions."""
    short, long = short_splits(visit.data), long_splits(visit.data)
    if options.judge is None:
        judge = trained_judge(visit, short, long, options.judge_s)
    else:
        judge = load_adapter(options.judge, visit.base.embedding.device)
    measure(visit, judge, visit.items(short.tune), "judge/tune")
    human = visit.items(short.train)
    synthetic_examples(visit, judge, human, options.writer_s, options.rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write questions and keep the consistent ones.")
    parser.add_argument("base", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--judge", type=Path, help="a cloud adapter, instead of a first one")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--judge-s", type=float, default=35.0)
    parser.add_argument("--writer-s", type=float, default=30.0)
    options = parser.parse_args()
    visit = open_visit(options.base, options.data, options.out)
    try:
        run(visit, options)
    finally:
        text = json.dumps(visit.figures, indent=1)
        (visit.out / "written.json").write_text(text, encoding="utf-8")
        visit.pool.shutdown(cancel_futures=True)


if __name__ == "__main__":
    main()

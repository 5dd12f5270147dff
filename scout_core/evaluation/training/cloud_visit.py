"""Train one cloud adapter on a GPU.

    python -m scout_core.evaluation.training.cloud_visit BASE DATA OUT VARIANT --synthetic FILE
        [--start ADAPTER]

BASE is a converted model folder, DATA the development data, FILE what ``write_questions`` kept.
OUT receives ``cloud-VARIANT.safetensors`` and ``cloud-VARIANT.json`` (the run, and F1 on the tuning
articles). A run begins afresh or where another adapter ended. Variants can run side by side on one
GPU; ``cloud_choice`` picks among them and their averages, and measures.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from scout_core.evaluation.dataset import Example, load_examples
from scout_core.evaluation.training.adapter import LowRank, fresh, load_adapter, save_adapter
from scout_core.evaluation.training.base_weights import ready_model
from scout_core.evaluation.training.chat import chat_messages, chat_rows
from scout_core.evaluation.training.cloud import Mixture, Row, fresh_pointer
from scout_core.evaluation.training.corpus import (
    Item,
    long_splits,
    short_splits,
    writing_passages,
)
from scout_core.evaluation.training.long_mix import (
    covid_examples,
    embedded_examples,
    mismatched_examples,
    supporting_examples,
)
from scout_core.evaluation.training.recurring_spans import recurring_span_examples
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

HELD_CHATS = 60
"""Chat rows that are measured, never trained on."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to train the cloud adapter; ends after ``steps`` or ``seconds``.

    Shares are of the short rows; what is left of 1 goes to human questions that have an answer.
    """

    name: str
    seed: int
    steps: int = 900
    seconds: float = 200.0
    learning_rate: float = 1.2e-3
    token_budget: int = 10_000
    pointer_weight: float = 0.4
    refused_share: float = 0.03
    mismatched_share: float = 0.04
    covid_share: float = 0.04
    supporting_share: float = 0.05
    blank_share: float = 0.12
    synthetic_share: float = 0.34
    sparse_share: float = 0.3
    dropout: float = 0.0
    chat_weight: float = 1.0


TAUGHT: Final = Variant(
    "taught",
    seed=21,
    steps=2500,
    seconds=250.0,
    blank_share=0.0,
    supporting_share=0.03,
    covid_share=0.03,
    synthetic_share=0.6,
    dropout=0.1,
)
"""Most rows are questions of ``teacher_questions``."""

VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("a", seed=1),
        Variant("b", seed=2),
        Variant("small-batch", seed=3, token_budget=5_000, learning_rate=8e-4, steps=1500),
        Variant(
            "without-blanks", seed=1, blank_share=0.0, supporting_share=0.0, synthetic_share=0.42
        ),
        Variant(
            "synthetic",
            seed=11,
            steps=2500,
            seconds=480.0,
            blank_share=0.0,
            supporting_share=0.03,
            synthetic_share=0.5,
            dropout=0.1,
        ),
        Variant(
            "onward",
            seed=12,
            steps=2500,
            seconds=480.0,
            learning_rate=6e-4,
            blank_share=0.0,
            supporting_share=0.05,
            synthetic_share=0.5,
            dropout=0.1,
        ),
        Variant(
            "onward-blanks",
            seed=13,
            steps=2500,
            seconds=480.0,
            learning_rate=8e-4,
            synthetic_share=0.42,
            dropout=0.1,
        ),
        TAUGHT,
        replace(TAUGHT, name="taught-calm", seed=23, chat_weight=2.0),
        replace(TAUGHT, name="taught-more", seed=24, synthetic_share=0.75),
    )
}


@dataclass(frozen=True, slots=True)
class Material:
    """Items by kind."""

    human: Sequence[Item]
    refused: Sequence[Item]
    mismatched: Sequence[Item]
    covid: Sequence[Item]
    supporting: Sequence[Item]
    blanks: Sequence[Item]
    made: Sequence[Item]
    longer: Sequence[Item]
    chat: Sequence[Row]


def trained(
    visit: Visit, variant: Variant, material: Material, start: Path | None = None
) -> LowRank:
    """The moving average of one variant's run."""
    pools = [
        (variant.covid_share, material.covid),
        (variant.refused_share, material.refused),
        (variant.mismatched_share, material.mismatched),
        (variant.supporting_share, material.supporting),
        (variant.blank_share, material.blanks),
        (variant.synthetic_share, material.made),
    ]
    pools.append((1 - sum(share for share, _ in pools), material.human))
    mixture = replace(
        Mixture(),
        sparse_share=variant.sparse_share,
        token_budget=variant.token_budget,
        pointer_weight=variant.pointer_weight,
        dropout=variant.dropout,
        chat_weight=variant.chat_weight,
        chat_rows=4,
    )
    feeder = feeder_of(visit, pools, material.longer, material.chat, mixture, variant.seed)
    if start is not None:
        adapter = load_adapter(start, visit.base.embedding.device)
    else:
        # One start for all seeds, so that their average is a model too.
        adapter = fresh(visit.base, layers=visit.shape.layers, rank=RANK, alpha=ALPHA, seed=1)
    pointer = fresh_pointer(visit.base, visit.shape) if variant.pointer_weight > 0 else None
    schedule = Schedule(variant.steps, variant.learning_rate, budget_s=variant.seconds)
    return train_cloud(visit, feeder, schedule, adapter, pointer)


def chat_of(visit: Visit) -> list[Row]:
    """The base model's replies; the first ``HELD_CHATS`` are held out."""
    base_model = ready_model(visit.base, visit.shape, None, visit.stop)
    return chat_rows(base_model, visit.prompter, chat_messages(visit.data, 0), 0)


def material_of(visit: Visit, synthetic: Sequence[Example]) -> Material:
    short, long = short_splits(visit.data), long_splits(visit.data)
    human = visit.items(short.train)
    made_from = [example for example in synthetic if example.source != "prose"]
    passages = [pair for pair in writing_passages(visit.data, short, long, 3) if pair[0] != "prose"]
    blanks = recurring_span_examples(list(dict.fromkeys(passages)), 6000, 1)
    mixed = embedded_examples([*short.train, *made_from], long, 1500, 4)
    longer = visit.items(long.train)
    return Material(
        human=[item for item in human if item.answers],
        refused=[item for item in human if not item.answers],
        mismatched=visit.items(mismatched_examples(short.train, 600, 9)),
        covid=visit.items(covid_examples(visit.data, long)),
        supporting=visit.items(supporting_examples(visit.data, long, 5)),
        blanks=visit.items(blanks),
        made=visit.items(made_from),
        longer=[*longer, *longer, *longer, *visit.items(mixed)],
        chat=chat_of(visit)[HELD_CHATS:],
    )


def run(
    visit: Visit, variant: Variant, synthetic: Sequence[Example], start: Path | None = None
) -> None:
    """Train, save, measure on the tuning articles."""
    material = material_of(visit, synthetic)
    note(f"{len(material.made)} synthetic, {len(material.blanks)} blanks ready")
    visit.figures["variant"] = asdict(variant)
    adapter = trained(visit, variant, material, start)
    path = visit.out / f"cloud-{variant.name}.safetensors"
    save_adapter(adapter, path, {"role": "cloud"}, {})
    measure(visit, adapter, visit.items(short_splits(visit.data).tune), f"{variant.name}/tune")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train one cloud adapter.")
    parser.add_argument("base", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("variant", choices=sorted(VARIANTS))
    parser.add_argument("--synthetic", type=Path, required=True, help="JSONL, not compressed")
    parser.add_argument("--start", type=Path, help="an adapter to go on from")
    options = parser.parse_args()
    visit = open_visit(options.base, options.data, options.out)
    try:
        run(visit, VARIANTS[options.variant], load_examples(options.synthetic), options.start)
    finally:
        text = json.dumps(visit.figures, indent=1)
        (visit.out / f"cloud-{options.variant}.json").write_text(text, encoding="utf-8")
        visit.pool.shutdown(cancel_futures=True)


if __name__ == "__main__":
    main()

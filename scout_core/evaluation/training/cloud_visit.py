"""Train cloud adapters and keep the one that answers best on the tuning articles.

    python -m scout_core.evaluation.training.cloud_visit BASE DATA OUT --synthetic FILE

BASE is a converted model folder, DATA the development data, FILE what ``write_questions`` kept.
OUT receives ``cloud.safetensors`` (the best by F1 on the tuning articles), ``cloud-NAME`` per
variant and ``cloud.json`` (figures of every variant on tuning and held-out articles).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from scout_core.evaluation.dataset import Example, load_examples
from scout_core.evaluation.training.adapter import LowRank, fresh, save_adapter
from scout_core.evaluation.training.base_weights import ready_model
from scout_core.evaluation.training.chat import chat_drift, chat_messages, chat_rows
from scout_core.evaluation.training.cloud import Mixture, Row, fresh_pointer
from scout_core.evaluation.training.corpus import Item, long_splits, short_splits
from scout_core.evaluation.training.long_mix import (
    covid_examples,
    embedded_examples,
    mismatched_examples,
)
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


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to train the cloud adapter."""

    name: str
    seconds: float
    learning_rate: float = 6e-4
    pointer_weight: float = 0.0
    refused_share: float = 0.02
    mismatched_share: float = 0.04
    synthetic_share: float = 0.42
    sparse_share: float = 0.3
    dropout: float = 0.1
    token_budget: int = 10_000


VARIANTS = (
    Variant("plain", 50.0),
    Variant("pointer", 55.0, pointer_weight=0.3),
    Variant("pointer-fast", 55.0, pointer_weight=0.3, learning_rate=1.2e-3),
    Variant("pointer-long", 180.0, pointer_weight=0.4, learning_rate=1.2e-3),
)


@dataclass(frozen=True, slots=True)
class Material:
    """Items by kind."""

    human: Sequence[Item]
    refused: Sequence[Item]
    mismatched: Sequence[Item]
    covid: Sequence[Item]
    made: Sequence[Item]
    longer: Sequence[Item]
    chat: Sequence[Row]


def trained(visit: Visit, variant: Variant, material: Material) -> LowRank:
    """The moving average of one variant's run."""
    human_share = 1 - variant.synthetic_share - variant.refused_share - variant.mismatched_share
    pools = [
        (0.92 * human_share, material.human),
        (0.08 * human_share, material.covid),
        (variant.refused_share, material.refused),
        (variant.mismatched_share, material.mismatched),
        (variant.synthetic_share, material.made),
    ]
    mixture = replace(
        Mixture(),
        sparse_share=variant.sparse_share,
        token_budget=variant.token_budget,
        pointer_weight=variant.pointer_weight,
        dropout=variant.dropout,
        chat_rows=4,
    )
    feeder = feeder_of(visit, pools, material.longer, material.chat, mixture)
    adapter = fresh(visit.base, layers=visit.shape.layers, rank=RANK, alpha=ALPHA, seed=1)
    pointer = fresh_pointer(visit.base, visit.shape) if variant.pointer_weight > 0 else None
    schedule = Schedule(100_000, variant.learning_rate, budget_s=variant.seconds)
    return train_cloud(visit, feeder, schedule, adapter, pointer)


def run(visit: Visit, synthetic: Sequence[Example], names: set[str]) -> None:
    """Train every named variant, measure, keep the best."""
    short, long = short_splits(visit.data), long_splits(visit.data)
    human = visit.items(short.train)
    made_from = [example for example in synthetic if example.source != "prose"]
    messages = chat_messages(visit.data, 0)
    base_model = ready_model(visit.base, visit.shape, None, visit.stop)
    chat = chat_rows(base_model, visit.prompter, messages, 0)
    mixed = embedded_examples([*short.train, *made_from], long, 1500, 4)
    longer = visit.items(long.train)
    material = Material(
        human=[item for item in human if item.answers],
        refused=[item for item in human if not item.answers],
        mismatched=visit.items(mismatched_examples(short.train, 600, 9)),
        covid=visit.items(covid_examples(visit.data, long)),
        made=visit.items(made_from),
        longer=[*longer, *longer, *longer, *visit.items(mixed)],
        chat=chat[60:],
    )
    tune, test = visit.items(short.tune), visit.items(short.test)
    long_test = visit.items(long.test)
    wrong = visit.items(mismatched_examples(short.test, 150, 9))
    note(f"data ready: {len(material.made)} synthetic, {len(material.longer)} long")
    best: tuple[float, LowRank | None, str] = (-1.0, None, "")
    for variant in VARIANTS:
        if variant.name not in names:
            continue
        visit.figures[f"variant/{variant.name}"] = asdict(variant)
        adapter = trained(visit, variant, material)
        reached = measure(visit, adapter, tune, f"{variant.name}/tune")
        measure(visit, adapter, test, f"{variant.name}/test")
        if reached > best[0]:
            best = (reached, adapter, variant.name)
    visit.figures["kept"] = best[2]
    if best[1] is not None:
        save_adapter(best[1], visit.out / "cloud.safetensors", {"role": "cloud"}, {})
    measure(visit, best[1], long_test, "kept/long_test")
    measure(visit, best[1], wrong, "kept/mismatched")
    measure(visit, None, test, "base/test")
    model = ready_model(visit.base, visit.shape, best[1], visit.stop)
    drift = chat_drift(model, chat[:60])
    visit.figures["chat"] = asdict(drift)
    note(f"kept {best[2]}; chat drift {drift}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the cloud adapter.")
    parser.add_argument("base", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--synthetic", type=Path, required=True, help="JSONL, not compressed")
    parser.add_argument("--variants", default=",".join(v.name for v in VARIANTS))
    options = parser.parse_args()
    visit = open_visit(options.base, options.data, options.out)
    try:
        run(visit, load_examples(options.synthetic), set(options.variants.split(",")))
    finally:
        text = json.dumps(visit.figures, indent=1)
        (visit.out / "cloud.json").write_text(text, encoding="utf-8")
        visit.pool.shutdown(cancel_futures=True)


if __name__ == "__main__":
    main()

"""Train one cloud adapter on a GPU.

    python -m scout_core.evaluation.training.cloud_visit BASE DATA OUT VARIANT --synthetic FILE
        [--start ADAPTER] [--chooser FOLDER] [--seconds S]

BASE is a converted model folder, DATA the development data, FILE what ``teacher_questions`` or
``write_questions`` kept. FOLDER holds ``scout.safetensors`` and ``readout.safetensors``: short
passages that are read in part are then read in selections of that scout's. OUT receives
``cloud-VARIANT.safetensors`` and ``cloud-VARIANT.json`` (the run, and F1 on the tuning articles). A
run begins afresh or where another adapter ended. Variants can run side by side on one GPU;
``cloud_choice`` picks among them and their averages, and measures.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scout_core.evaluation.dataset import Example, load_examples
from scout_core.evaluation.training.adapter import LowRank, fresh, load_adapter, save_adapter
from scout_core.evaluation.training.base_weights import ready_model
from scout_core.evaluation.training.chat import chat_messages, chat_rows
from scout_core.evaluation.training.cloud import Mixture, fresh_pointer
from scout_core.evaluation.training.cloud_rows import EVICT_LIMIT, Row, Selections
from scout_core.evaluation.training.corpus import Item, long_splits, short_splits
from scout_core.evaluation.training.long_mix import (
    covid_examples,
    embedded_examples,
    mismatched_examples,
    supporting_examples,
)
from scout_core.evaluation.training.scout import Scout, opened
from scout_core.evaluation.training.scout_figures import scored
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
STEPS = 6000
"""Beyond what the seconds allow: those end a run."""
LEARNING_RATE = 1.2e-3
COVID_SHARE = 0.03
REFUSED_SHARE = 0.03
MISMATCHED_SHARE = 0.04
SUPPORTING_SHARE = 0.03
BATCHES: Final = Mixture(
    token_budget=10_000, pointer_weight=0.4, dropout=0.1, chat_rows=4, chat_weight=1.0
)


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to train the cloud adapter; ends after ``seconds`` (or ``STEPS``).

    Shares are of the short rows; what is left of 1 goes to human questions that have an answer.
    """

    name: str
    seed: int
    seconds: float = 250.0
    synthetic_share: float = 0.6
    sparse_share: float = 0.3
    evict_share: float = 0.0
    """A variant with some needs a scout to choose what is not evicted."""


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("taught", seed=21),
        Variant("chosen", seed=31, synthetic_share=0.66, evict_share=0.3),
        Variant("chosen-more", seed=33, synthetic_share=0.75, sparse_share=0.35, evict_share=0.3),
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
    made: Sequence[Item]
    longer: Sequence[Item]
    chat: Sequence[Row]

    def items(self) -> Iterator[Item]:
        """Every item, some of them more than once."""
        kinds = (self.human, self.refused, self.mismatched, self.covid, self.supporting)
        return chain(*kinds, self.made, self.longer)


def trained(
    visit: Visit,
    variant: Variant,
    material: Material,
    scores: Mapping[int, NDArray[np.float16]],
    start: Path | None = None,
) -> LowRank:
    """The moving average of one variant's run; ``scores`` as in ``Selections``."""
    pools = [
        (COVID_SHARE, material.covid),
        (REFUSED_SHARE, material.refused),
        (MISMATCHED_SHARE, material.mismatched),
        (SUPPORTING_SHARE, material.supporting),
        (variant.synthetic_share, material.made),
    ]
    pools.append((1 - sum(share for share, _ in pools), material.human))
    mixture = replace(
        BATCHES,
        selections=Selections(variant.sparse_share, variant.evict_share, scores),
    )
    feeder = feeder_of(visit, pools, material.longer, material.chat, mixture, variant.seed)
    if start is not None:
        adapter = load_adapter(start, visit.base.embedding.device)
    else:
        # One start for all seeds, so that their average is a model too.
        adapter = fresh(visit.base, layers=visit.shape.layers, rank=RANK, alpha=ALPHA, seed=1)
    schedule = Schedule(STEPS, LEARNING_RATE, budget_s=variant.seconds)
    return train_cloud(visit, feeder, schedule, adapter, fresh_pointer(visit.base, visit.shape))


def scores_by(visit: Visit, scout: Scout, items: Iterable[Item]) -> dict[int, NDArray[np.float16]]:
    """A scout's scores of the items that can be evicted, by identity."""
    few = {id(item): item for item in items if len(item.context) <= EVICT_LIMIT}
    rows = scored(visit, scout, list(few.values()))
    return {key: row.astype(np.float16) for key, row in zip(few, rows, strict=True)}


def chat_of(visit: Visit) -> list[Row]:
    """The base model's replies; the first ``HELD_CHATS`` are held out."""
    base_model = ready_model(visit.base, visit.shape, None, visit.stop)
    return chat_rows(base_model, visit.prompter, chat_messages(visit.data, 0), 0)


def material_of(visit: Visit, synthetic: Sequence[Example]) -> Material:
    short, long = short_splits(visit.data), long_splits(visit.data)
    human = visit.items(short.train)
    made_from = [example for example in synthetic if example.source != "prose"]
    mixed = embedded_examples([*short.train, *made_from], long, 1500, 4)
    longer = visit.items(long.train)
    return Material(
        human=[item for item in human if item.answers],
        refused=[item for item in human if not item.answers],
        mismatched=visit.items(mismatched_examples(short.train, 600, 9)),
        covid=visit.items(covid_examples(visit.data, long)),
        supporting=visit.items(supporting_examples(visit.data, long, 5)),
        made=visit.items(made_from),
        longer=[*longer, *longer, *longer, *visit.items(mixed)],
        chat=chat_of(visit)[HELD_CHATS:],
    )


def run(
    visit: Visit, variant: Variant, synthetic: Sequence[Example], options: argparse.Namespace
) -> None:
    """Train, save, measure on the tuning articles."""
    material = material_of(visit, synthetic)
    note(f"{len(material.made)} synthetic ready")
    scores: dict[int, NDArray[np.float16]] = {}
    if options.chooser is not None:
        scout = opened(options.chooser, visit.base.embedding.device)
        scores = scores_by(visit, scout, material.items())
        note(f"{len(scores)} questions scored")
    visit.figures["variant"] = asdict(variant)
    adapter = trained(visit, variant, material, scores, options.start)
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
    parser.add_argument("--chooser", type=Path, help="folder of the scout that makes selections")
    parser.add_argument("--seconds", type=float, help="of training, instead of the variant's")
    options = parser.parse_args()
    variant: Variant = VARIANTS[options.variant]
    if variant.evict_share > 0 and options.chooser is None:
        parser.error(f"{variant.name} trains on the selections of a scout: give --chooser FOLDER")
    if options.seconds is not None:
        variant = replace(variant, seconds=options.seconds)
    visit = open_visit(options.base, options.data, options.out)
    try:
        run(visit, variant, load_examples(options.synthetic), options)
    finally:
        text = json.dumps(visit.figures, indent=1)
        (visit.out / f"cloud-{variant.name}.json").write_text(text, encoding="utf-8")
        visit.pool.shutdown(cancel_futures=True)


if __name__ == "__main__":
    main()

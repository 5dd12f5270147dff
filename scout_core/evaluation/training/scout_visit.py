"""Train one scout on a GPU from the cloud's adapter.

    python -m scout_core.evaluation.training.scout_visit BASE DATA OUT VARIANT --cloud FILE
        --synthetic FILE [--start FOLDER] [--seconds S]

A run begins from the cloud's first layers and a new readout, or from ``scout.safetensors`` and
``readout.safetensors`` in FOLDER. OUT receives ``scout-VARIANT.safetensors`` (adapter),
``readout-VARIANT.safetensors`` and ``scout-VARIANT.json`` (the run, and recall on the tuning
articles). Variants can run side by side on one GPU; ``scout_choice`` picks among them and measures.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from scout_core.evaluation.training.adapter import LowRank, average_of, load_adapter, save_adapter
from scout_core.evaluation.training.corpus import (
    long_splits,
    short_splits,
)
from scout_core.evaluation.training.scout import (
    LAYERS,
    ItemFeeder,
    Scout,
    opened,
    pointer_loss,
    pointer_targets,
    scout_scores,
)
from scout_core.evaluation.training.scout_figures import (
    RETENTIONS,
    best_width,
    scored,
)
from scout_core.evaluation.training.scout_material import cloud_heads, material_of, taught
from scout_core.evaluation.training.trainer import Schedule, optimise
from scout_core.evaluation.training.visit import Visit, note, open_visit
from scout_core.selection.lexical import FEATURES
from scout_core.selection.readout import Readout, ReadoutShape, fresh_readout

STEPS = 6000
"""Beyond what the seconds allow: those end a run."""
PROJECTED = 32
WIDTH = 48
DROPOUT = 0.1


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to train a scout; ends after ``STEPS`` or ``seconds``."""

    name: str
    seed: int
    seconds: float = 190.0
    attends: bool = True
    """Reads attention and hidden states, beside words."""
    distilled: float = 0.4
    learning_rate: float = 1.2e-3
    human_share: float = 0.3
    """Of the short rows; 0.12 go to blanks and 0.08 to COVID-QA, the rest is synthetic."""


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant(
            "lexical",
            seed=14,
            seconds=60.0,
            attends=False,
            distilled=0.0,
            learning_rate=6e-4,
            human_share=0.42,
        ),
        Variant("taught", seed=21),
        Variant("taught-slow", seed=22, learning_rate=6e-4),
        Variant("taught-pointer", seed=23, distilled=0.15),
    )
}


def built(visit: Visit, cloud: LowRank, variant: Variant) -> Scout:
    """An untrained scout that starts from the cloud's adapter."""
    seen = LAYERS * visit.shape.heads * 2 if variant.attends else 0
    device = visit.base.embedding.device
    shape = ReadoutShape(
        channels=seen + 2 * len(FEATURES),
        hidden_size=visit.base.embedding.shape[1],
        projected=PROJECTED if variant.attends else 0,
        width=WIDTH,
    )
    readout = fresh_readout(shape, seed=0, device=device)
    readout.dropout = DROPOUT
    return Scout(cloud.first(LAYERS) if variant.attends else None, readout, LAYERS)


def train_scout(
    visit: Visit, scout: Scout, variant: Variant, feeder: ItemFeeder, teacher: Mapping[int, Any]
) -> Scout:
    """Train in place; returns the moving average."""
    adapter_average = None if scout.adapter is None else average_of(scout.adapter, 0.995)
    shadow = Readout({k: v.detach().clone() for k, v in scout.readout.tensors.items()})
    device = visit.base.embedding.device

    def loss_at(_: int) -> torch.Tensor:
        items = feeder.batch()
        scores, batch = scout_scores(
            visit.base, visit.shape, scout, items, visit.prompter, training=True
        )
        targets = pointer_targets(items, scores.shape[1], device)
        if variant.distilled > 0:
            table = np.zeros(tuple(scores.shape), dtype=np.float32)
            for index, item in enumerate(items):
                table[index, : len(item.context)] = teacher[id(item)]
            held = torch.from_numpy(table).to(device)
            targets = (1 - variant.distilled) * targets + variant.distilled * held
        return pointer_loss(scores, targets, batch.context_valid)

    steps = 0

    def after() -> None:
        nonlocal steps
        steps += 1
        if adapter_average is not None and scout.adapter is not None:
            adapter_average.update(scout.adapter)
        decay = min(0.995, steps / (steps + 9))
        with torch.no_grad():
            for name, mean in shadow.tensors.items():
                mean.lerp_(scout.readout.tensors[name].detach(), 1 - decay)

    outcome = optimise(
        scout.parameters(),
        loss_at,
        Schedule(STEPS, variant.learning_rate, budget_s=variant.seconds),
        after,
    )
    note(f"{variant.name}: {outcome.steps} steps in {outcome.seconds:.0f} s {outcome.losses}")
    visit.figures["run"] = {**asdict(variant), **asdict(outcome)}
    adapter = None if adapter_average is None else adapter_average.shadow
    return Scout(adapter, shadow, scout.layers)


def run(visit: Visit, variant: Variant, options: argparse.Namespace) -> None:
    device = visit.base.embedding.device
    cloud = load_adapter(options.cloud, device)
    short, long = short_splits(visit.data), long_splits(visit.data)
    material = material_of(visit, short, long, options.synthetic)
    kinds = {name: len(getattr(material, name)) for name in ("human", "made", "blanks", "covid")}
    note(f"{kinds}, {len(material.longer)} long")
    heads = cloud_heads(visit, cloud, material.human)
    save_file({"heads": heads.cpu()}, str(visit.out / "cloud-heads.safetensors"))
    teacher: dict[int, NDArray[np.float32]] = {}
    if variant.distilled > 0:
        teacher = taught(visit, cloud, heads, material.everything())
    note("cloud heads fitted")
    pools = [
        (variant.human_share, material.human),
        (0.8 - variant.human_share, material.made),
        (0.12, material.blanks),
        (0.08, material.covid),
    ]
    generator = random.Random(variant.seed)  # noqa: S311 - a reproducible draw
    feeder = ItemFeeder(pools, material.longer, generator)
    if options.start is not None:
        start = opened(options.start, device, DROPOUT)
    else:
        start = built(visit, cloud, variant)
    scout = train_scout(visit, start, variant, feeder, teacher)
    extra = {k: v.detach().cpu().contiguous() for k, v in scout.readout.tensors.items()}
    save_file(extra, str(visit.out / f"readout-{variant.name}.safetensors"))
    if scout.adapter is not None:
        save_adapter(scout.adapter, visit.out / f"scout-{variant.name}.safetensors", {}, {})
    tune = [item for item in visit.items(short.tune) if item.spans]
    scores = scored(visit, scout, tune)
    recalls = {retention: best_width(tune, scores, retention) for retention in RETENTIONS}
    visit.figures["tune"] = recalls
    note(f"{variant.name}: (width, recall) on tune {recalls}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train one scout.")
    parser.add_argument("base", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("variant", choices=sorted(VARIANTS))
    parser.add_argument("--cloud", type=Path, required=True)
    parser.add_argument("--synthetic", type=Path, required=True, help="JSONL, not compressed")
    parser.add_argument("--start", type=Path, help="folder of a scout to go on from")
    parser.add_argument("--seconds", type=float, help="of training, instead of the variant's")
    options = parser.parse_args()
    variant: Variant = VARIANTS[options.variant]
    if options.seconds is not None:
        variant = replace(variant, seconds=options.seconds)
    if options.start is not None and not variant.attends:
        parser.error(f"{variant.name} reads words alone and begins afresh: leave --start out")
    visit = open_visit(options.base, options.data, options.out)
    try:
        run(visit, variant, options)
    finally:
        text = json.dumps(visit.figures, indent=1)
        (visit.out / f"scout-{options.variant}.json").write_text(text, encoding="utf-8")
        visit.pool.shutdown(cancel_futures=True)


if __name__ == "__main__":
    main()

"""Train one scout on a GPU from the cloud's adapter.

    python -m scout_core.evaluation.training.scout_visit BASE DATA OUT VARIANT --cloud FILE
        --synthetic FILE

OUT receives ``scout-VARIANT.safetensors`` (adapter), ``readout-VARIANT.safetensors`` and
``scout-VARIANT.json`` (the run, and recall on the tuning articles). Variants can run side by side
on one GPU; ``scout_choice`` picks among them and measures.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from scout_core.evaluation.dataset import load_examples
from scout_core.evaluation.training.adapter import LowRank, average_of, load_adapter, save_adapter
from scout_core.evaluation.training.base_weights import ready_model
from scout_core.evaluation.training.calibration import cloud_features, fit_heads
from scout_core.evaluation.training.corpus import (
    Item,
    Splits,
    long_splits,
    short_splits,
    writing_passages,
)
from scout_core.evaluation.training.long_mix import (
    covid_examples,
    embedded_examples,
    supporting_examples,
)
from scout_core.evaluation.training.recurring_spans import recurring_span_examples
from scout_core.evaluation.training.scout import (
    ItemFeeder,
    Scout,
    pointer_loss,
    pointer_targets,
    scout_scores,
)
from scout_core.evaluation.training.scout_figures import (
    RETENTIONS,
    Scores,
    best_width,
    head_scores,
    scored,
)
from scout_core.evaluation.training.trainer import Schedule, optimise
from scout_core.evaluation.training.visit import Visit, note, open_visit
from scout_core.selection.lexical import FEATURES
from scout_core.selection.readout import Readout, ReadoutShape, fresh_readout

LAYERS = 10
STEPS = 1400


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to train a scout; ends after ``STEPS`` or ``seconds``."""

    name: str
    seconds: float = 170.0
    attends: bool = True
    projected: int = 32
    distilled: float = 0.4
    learning_rate: float = 6e-4
    width: int = 48
    layers: int = LAYERS
    dropout: float = 0.1


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("lexical", seconds=15.0, attends=False, projected=0, distilled=0.0),
        Variant("attention", projected=0),
        Variant("states"),
        Variant("states-fast", learning_rate=1.2e-3),
        Variant("states-pointer", distilled=0.15),
    )
}


def built(visit: Visit, cloud: LowRank, variant: Variant) -> Scout:
    """An untrained scout that starts from the cloud's adapter."""
    seen = variant.layers * visit.shape.heads * 2 if variant.attends else 0
    device = visit.base.embedding.device
    shape = ReadoutShape(
        channels=seen + 2 * len(FEATURES),
        hidden_size=visit.base.embedding.shape[1],
        projected=variant.projected,
        width=variant.width,
    )
    readout = fresh_readout(shape, seed=0, device=device)
    readout.dropout = variant.dropout
    return Scout(cloud.first(variant.layers) if variant.attends else None, readout, variant.layers)


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


def teacher_targets(scores: Scores, items: Sequence[Item]) -> dict[int, NDArray[np.float32]]:
    """Per item (by identity) the cloud's calibrated scores as a distribution."""
    out: dict[int, NDArray[np.float32]] = {}
    for row, item in zip(scores, items, strict=True):
        raised = np.exp(row - row.max())
        out[id(item)] = raised / raised.sum()
    return out


@dataclass(frozen=True, slots=True)
class Material:
    """Training items by kind; all have a span."""

    human: list[Item]
    made: list[Item]
    blanks: list[Item]
    covid: list[Item]
    longer: list[Item]

    def everything(self) -> list[Item]:
        return [*self.human, *self.made, *self.blanks, *self.covid, *self.longer]


def material_of(visit: Visit, short: Splits, long: Splits, synthetic_path: Path) -> Material:
    synthetic = load_examples(synthetic_path)
    passages = [pair for pair in writing_passages(visit.data, short, long, 3) if pair[0] != "prose"]
    blanks = recurring_span_examples(list(dict.fromkeys(passages)), 6000, 1)
    gold = supporting_examples(visit.data, long, 5)
    mixed = embedded_examples([*short.train, *synthetic, *blanks], long, 900, 4)

    def spanned(items: Sequence[Item], limit: int) -> list[Item]:
        return [item for item in items if item.spans and len(item.context) < limit]

    return Material(
        human=spanned(visit.items([*short.train, *gold]), 1200),
        made=spanned(visit.items(synthetic), 1200),
        blanks=spanned(visit.items(blanks), 1200),
        covid=spanned(visit.items(covid_examples(visit.data, long)), 1200),
        longer=spanned(visit.items([*mixed, *long.train]), 6000),
    )


def cloud_heads(visit: Visit, cloud: LowRank, human: Sequence[Item]) -> torch.Tensor:
    """The cloud's own calibrated heads, fitted on up to 700 training questions."""
    model = ready_model(visit.base, visit.shape, cloud, visit.stop)
    fitted_on = random.Random(0).sample(human, min(700, len(human)))  # noqa: S311 - reproducible
    seen = cloud_features(model, visit.prompter, fitted_on)
    return fit_heads(seen, fitted_on, l2=1e-4, device=model.device)


def run(visit: Visit, variant: Variant, cloud_path: Path, synthetic_path: Path) -> None:
    device = visit.base.embedding.device
    cloud = load_adapter(cloud_path, device)
    short, long = short_splits(visit.data), long_splits(visit.data)
    material = material_of(visit, short, long, synthetic_path)
    kinds = {name: len(getattr(material, name)) for name in ("human", "made", "blanks", "covid")}
    note(f"{kinds}, {len(material.longer)} long")
    model = ready_model(visit.base, visit.shape, cloud, visit.stop)
    heads = cloud_heads(visit, cloud, material.human)
    save_file({"heads": heads.cpu()}, str(visit.out / "cloud-heads.safetensors"))
    teacher: dict[int, NDArray[np.float32]] = {}
    if variant.distilled > 0:
        everything = material.everything()
        seen = cloud_features(model, visit.prompter, everything)
        teacher = teacher_targets(head_scores(seen, heads), everything)
    note("cloud heads fitted")
    pools = [
        (0.42, material.human),
        (0.38, material.made),
        (0.12, material.blanks),
        (0.08, material.covid),
    ]
    generator = random.Random(1)  # noqa: S311 - a reproducible draw, not a secret
    feeder = ItemFeeder(pools, material.longer, generator)
    scout = train_scout(visit, built(visit, cloud, variant), variant, feeder, teacher)
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
    options = parser.parse_args()
    visit = open_visit(options.base, options.data, options.out)
    try:
        run(visit, VARIANTS[options.variant], options.cloud, options.synthetic)
    finally:
        text = json.dumps(visit.figures, indent=1)
        (visit.out / f"scout-{options.variant}.json").write_text(text, encoding="utf-8")
        visit.pool.shutdown(cancel_futures=True)


if __name__ == "__main__":
    main()

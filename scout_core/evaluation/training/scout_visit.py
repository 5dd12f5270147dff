"""Second half of a training visit to a GPU: scouts, and what they are worth to the cloud model.

    python -m scout_core.evaluation.training.scout_visit BASE DATA OUT --cloud FILE --synthetic FILE

OUT receives ``scout-NAME.safetensors`` (adapter), ``readout-NAME.safetensors`` per variant and
``scout.json`` (figures of every variant on held-out articles).
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

from scout_core.evaluation.dataset import Example, load_examples
from scout_core.evaluation.quality_answers import Model
from scout_core.evaluation.training.adapter import LowRank, average_of, load_adapter, save_adapter
from scout_core.evaluation.training.base_weights import ready_model
from scout_core.evaluation.training.calibration import cloud_features, fit_heads
from scout_core.evaluation.training.corpus import Item, long_splits, short_splits
from scout_core.evaluation.training.long_mix import covid_examples, embedded_examples
from scout_core.evaluation.training.sampling import by_length
from scout_core.evaluation.training.scout import (
    ItemFeeder,
    Scout,
    pointer_loss,
    pointer_targets,
    scout_scores,
)
from scout_core.evaluation.training.selection_study import (
    Bench,
    answer_recall,
    as_rows,
    top_positions,
)
from scout_core.evaluation.training.trainer import Schedule, optimise
from scout_core.evaluation.training.visit import Visit, note, open_visit
from scout_core.selection.lexical import FEATURES
from scout_core.selection.readout import Readout, fresh_readout

LAYERS = 10
RETENTIONS = (0.5, 0.25, 0.1)
WIDTHS = (1, 3, 5, 9, 15, 25)
Scores = list[NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to train a scout."""

    name: str
    seconds: float
    attends: bool = True
    causal: bool = True
    lexical: bool = True
    distilled: float = 0.0
    learning_rate: float = 6e-4
    width: int = 48
    layers: int = LAYERS
    dropout: float = 0.1


VARIANTS = (
    Variant("lexical", 15.0, attends=False),
    Variant("causal", 50.0),
    Variant("both-ways", 50.0, causal=False),
    Variant("distilled", 50.0, distilled=0.4),
)


def built(visit: Visit, cloud: LowRank, variant: Variant) -> Scout:
    """An untrained scout that starts from the cloud's adapter."""
    heads = visit.shape.heads
    channels = (variant.layers * heads * 2 if variant.attends else 0) + (
        2 * len(FEATURES) if variant.lexical else 0
    )
    device = visit.base.embedding.device
    readout = fresh_readout(channels, width=variant.width, seed=0, device=device)
    readout.dropout = variant.dropout
    adapter = cloud.first(variant.layers) if variant.attends else None
    return Scout(adapter, readout, variant.layers, variant.causal, variant.lexical)


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
        Schedule(100_000, variant.learning_rate, budget_s=variant.seconds),
        after,
    )
    note(f"{variant.name}: {outcome.steps} steps in {outcome.seconds:.0f} s {outcome.losses}")
    visit.figures.setdefault("runs", {})[variant.name] = {**asdict(variant), **asdict(outcome)}
    adapter = None if adapter_average is None else adapter_average.shadow
    return Scout(adapter, shadow, scout.layers, scout.causal, scout.uses_lexical)


@torch.no_grad()
def scored(visit: Visit, scout: Scout, items: Sequence[Item]) -> Scores:
    out: Scores = [np.empty(0, dtype=np.float32)] * len(items)
    for index in by_length([len(item.context) + 60 for item in items], 60_000):
        part = [items[i] for i in index]
        scores, _ = scout_scores(visit.base, visit.shape, scout, part, visit.prompter)
        for place, row in zip(index, as_rows(scores, part), strict=True):
            out[place] = row
    return out


def head_scores(features: Sequence[torch.Tensor], weights: torch.Tensor) -> Scores:
    held = weights.cpu()
    return [(held @ feature).numpy().astype(np.float32) for feature in features]


def best_width(items: Sequence[Item], scores: Scores, retention: float) -> tuple[int, float]:
    """Smoothing width with the highest answer recall."""
    recalls = {
        width: float(
            answer_recall(items, [top_positions(s, retention, width) for s in scores]).mean()
        )
        for width in WIDTHS
    }
    width = max(recalls, key=lambda w: recalls[w])
    return width, recalls[width]


def compare(
    visit: Visit,
    model: Model,
    items: Sequence[Item],
    scores: Mapping[str, Scores],
    widths: Mapping[tuple[str, float], int],
) -> dict[str, Any]:
    """F1 of both executions, ratio to full context and recall, per selector and retention."""
    selections: dict[str, list[list[int]]] = {
        "full": [list(range(len(item.context))) for item in items]
    }
    recalls: dict[str, float] = {}
    for name, rows in scores.items():
        for retention in RETENTIONS:
            width = widths.get((name, retention), 5)
            kept = [top_positions(row, retention, width) for row in rows]
            selections[f"{name}@{retention}/evict"] = kept
            selections[f"{name}@{retention}/sparse"] = kept
            recalls[f"{name}@{retention}"] = float(answer_recall(items, kept).mean())
            if name in ("causal", "distilled", "both-ways") and retention < 0.5:
                for wide in (9, 15, 25):
                    selections[f"{name}@{retention}w{wide}/sparse"] = [
                        top_positions(row, retention, wide) for row in rows
                    ]
    f1 = Bench(model, visit.prompter, items).f1(selections)
    whole = float(f1["full"].mean())
    sources = sorted({item.source for item in items})
    report: dict[str, Any] = {"n": len(items), "full": whole, "recall": recalls, "rows": {}}
    for name, values in f1.items():
        split = {
            source: round(
                float(values[[i for i, item in enumerate(items) if item.source == source]].mean()),
                4,
            )
            for source in sources
        }
        ratio = float(values.mean()) / max(whole, 1e-9)
        report["rows"][name] = {"f1": float(values.mean()), "ratio": ratio, "sources": split}
        base = name.split("/")[0]
        recall = recalls.get(base, 0.0)
        note(f"  {name:28s} f1 {values.mean():.4f} ratio {ratio:.4f} {recall:.3f} {split}")
    return report


def teacher_targets(scores: Scores, items: Sequence[Item]) -> dict[int, NDArray[np.float32]]:
    """Per item (by identity) the cloud's calibrated scores as a distribution."""
    out: dict[int, NDArray[np.float32]] = {}
    for row, item in zip(scores, items, strict=True):
        raised = np.exp(row - row.max())
        out[id(item)] = raised / raised.sum()
    return out


def run(visit: Visit, cloud_path: Path, synthetic: Sequence[Example], names: set[str]) -> None:
    device = visit.base.embedding.device
    cloud = load_adapter(cloud_path, device)
    short, long = short_splits(visit.data), long_splits(visit.data)
    human = [item for item in visit.items(short.train) if item.spans]
    covid = [item for item in visit.items(covid_examples(visit.data, long)) if item.spans]
    made = [item for item in visit.items(synthetic) if item.spans]
    longer = visit.items(
        [*embedded_examples([*short.train, *synthetic], long, 900, 4), *long.train]
    )
    longer = [item for item in longer if item.spans and len(item.context) < 6000]
    tune = [item for item in visit.items(short.tune) if item.spans]
    test = [item for item in visit.items(short.test) if item.answers]
    long_test = [item for item in visit.items(long.test) if item.source.startswith("hotpot")]
    note(f"{len(human)} human, {len(made)} synthetic, {len(covid)} covid, {len(longer)} long")
    model = ready_model(visit.base, visit.shape, cloud, visit.stop)
    fitted_on = random.Random(0).sample(human, min(700, len(human)))  # noqa: S311 - reproducible
    heads = fit_heads(
        cloud_features(model, visit.prompter, fitted_on), fitted_on, l2=1e-4, device=device
    )
    save_file({"heads": heads.cpu()}, str(visit.out / "cloud-heads.safetensors"))

    def cloud_scores(items: Sequence[Item]) -> Scores:
        return head_scores(cloud_features(model, visit.prompter, items), heads)

    everything = [*human, *made, *covid, *longer]
    distils = any(v.distilled > 0 for v in VARIANTS if v.name in names)
    teacher = teacher_targets(cloud_scores(everything), everything) if distils else {}
    note("cloud heads fitted")
    by_name: dict[str, list[Scores]] = {
        "cloud": [cloud_scores(tune), cloud_scores(test), cloud_scores(long_test)]
    }
    for variant in VARIANTS:
        if variant.name not in names:
            continue
        generator = random.Random(1)  # noqa: S311 - a reproducible draw, not a secret
        feeder = ItemFeeder([(0.4, human), (0.5, made), (0.1, covid)], longer, generator)
        scout = train_scout(visit, built(visit, cloud, variant), variant, feeder, teacher)
        by_name[variant.name] = [scored(visit, scout, items) for items in (tune, test, long_test)]
        extra = {k: v.detach().cpu().contiguous() for k, v in scout.readout.tensors.items()}
        save_file(extra, str(visit.out / f"readout-{variant.name}.safetensors"))
        if scout.adapter is not None:
            save_adapter(scout.adapter, visit.out / f"scout-{variant.name}.safetensors", {}, {})
    widths: dict[tuple[str, float], int] = {}
    for name, (on_tune, _, _) in by_name.items():
        for retention in RETENTIONS:
            widths[name, retention], recall = best_width(tune, on_tune, retention)
            note(f"tune {name}@{retention}: width {widths[name, retention]} recall {recall:.3f}")
    generator = np.random.default_rng(0)
    for place, (label, items) in enumerate((("test", test), ("long_test", long_test)), start=1):
        scores = {name: rows[place] for name, rows in by_name.items()}
        scores["random"] = [
            generator.random(len(item.context)).astype(np.float32) for item in items
        ]
        visit.figures[label] = compare(visit, model, items, scores, widths)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train scouts and measure them.")
    parser.add_argument("base", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--cloud", type=Path, required=True)
    parser.add_argument("--synthetic", type=Path, required=True, help="JSONL, not compressed")
    parser.add_argument("--variants", default=",".join(v.name for v in VARIANTS))
    options = parser.parse_args()
    visit = open_visit(options.base, options.data, options.out)
    try:
        examples = load_examples(options.synthetic)
        run(visit, options.cloud, examples, set(options.variants.split(",")))
    finally:
        text = json.dumps(visit.figures, indent=1)
        (visit.out / "scout.json").write_text(text, encoding="utf-8")
        visit.pool.shutdown(cancel_futures=True)


if __name__ == "__main__":
    main()

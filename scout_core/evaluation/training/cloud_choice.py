"""Pick the best of several cloud adapters and of their averages, then measure it.

    python -m scout_core.evaluation.training.cloud_choice BASE DATA OUT ADAPTER … [--chooser FOLDER]

Averaging adapters that began alike averages their updates (Wortsman et al. 2022, "model soups");
the sum of low-rank updates is brought back to the rank of one. The choice is made by F1 on the
tuning articles alone; given a FOLDER of ``scout.safetensors`` and ``readout.safetensors``, by the
mean over seven ways: the whole passage, and that scout's selections at each retention, evicted and
sparse. The chosen one is measured on held-out
articles, on long contexts, on mismatched passages and on chat. OUT receives ``cloud.safetensors``
and ``cloud-choice.json``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from scout_core.evaluation.training.adapter import (
    LowRank,
    averaged,
    load_adapter,
    save_adapter,
    with_averages,
)
from scout_core.evaluation.training.base_weights import ready_model
from scout_core.evaluation.training.chat import chat_drift
from scout_core.evaluation.training.cloud_visit import HELD_CHATS, chat_of
from scout_core.evaluation.training.corpus import Item, long_splits, short_splits
from scout_core.evaluation.training.long_mix import mismatched_examples
from scout_core.evaluation.training.scout import opened
from scout_core.evaluation.training.scout_figures import RETENTIONS, Scores, in_runs, scored
from scout_core.evaluation.training.selection_study import Bench
from scout_core.evaluation.training.visit import Visit, measure, note, open_visit


def served(
    visit: Visit, adapter: LowRank, items: Sequence[Item], scores: Scores
) -> dict[str, float]:
    """Mean F1 from whole passages and, where there are scores, from selections in both executions.

    Args:
        scores: a scout's of every item, or none.
    """
    selections = {"full": [list(range(len(item.context))) for item in items]}
    for retention in RETENTIONS if scores else ():
        kept = in_runs(scores, retention)
        selections |= {f"{retention}/evict": kept, f"{retention}/sparse": kept}
    model = ready_model(visit.base, visit.shape, adapter, visit.stop)
    found = Bench(model, visit.prompter, items).f1(selections)
    return {name: float(values.mean()) for name, values in found.items()}


def run(visit: Visit, paths: list[Path], chooser: Path | None) -> None:
    device = visit.base.embedding.device
    named = {p.stem.removeprefix("cloud-"): load_adapter(p, device).detached() for p in paths}
    short, long = short_splits(visit.data), long_splits(visit.data)
    tune = [item for item in visit.items(short.tune) if item.answers]
    scores = [] if chooser is None else scored(visit, opened(chooser, device), tune)
    reached: dict[str, float] = {}
    found = with_averages(named, averaged)
    for name, adapter in found.items():
        table = served(visit, adapter, tune, scores)
        reached[name] = sum(table.values()) / len(table)
        visit.figures[f"{name}/tune"] = table
        note(f"{name}/tune: mean {reached[name]:.4f}, {table}")
    best = max(reached, key=lambda name: reached[name])
    visit.figures["kept"] = best
    save_adapter(found[best], visit.out / "cloud.safetensors", {"role": "cloud"}, {})
    test = visit.items(short.test)
    for name in dict.fromkeys([best, *named]):
        measure(visit, found[name], test, f"{name}/test")
    measure(visit, found[best], visit.items(long.test), f"{best}/long_test")
    wrong = visit.items(mismatched_examples(short.test, 150, 9))
    measure(visit, found[best], wrong, f"{best}/mismatched")
    model = ready_model(visit.base, visit.shape, found[best], visit.stop)
    drift = chat_drift(model, chat_of(visit)[:HELD_CHATS])
    visit.figures["chat"] = asdict(drift)
    note(f"kept {best}; chat drift {drift}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Pick a cloud adapter and measure it.")
    parser.add_argument("base", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("adapters", type=Path, nargs="+")
    parser.add_argument("--chooser", type=Path, help="folder of a scout: choose by its selections")
    options = parser.parse_args()
    visit = open_visit(options.base, options.data, options.out)
    try:
        run(visit, options.adapters, options.chooser)
    finally:
        text = json.dumps(visit.figures, indent=1)
        (visit.out / "cloud-choice.json").write_text(text, encoding="utf-8")
        visit.pool.shutdown(cancel_futures=True)


if __name__ == "__main__":
    main()

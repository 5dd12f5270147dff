"""Pick the best of several trained scouts and their mixtures, then measure it on held-out articles.

    python -m scout_core.evaluation.training.scout_choice BASE DATA OUT --cloud FILE --scouts FOLDER

FOLDER holds what ``scout_visit`` wrote; the choice is by answer recall on the tuning articles among
all scouts, their averages, and each of these with the word readout beside it. OUT receives
``scout.safetensors`` and ``readout.safetensors`` of the best scout and ``scout-choice.json``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from scout_core.evaluation.training.adapter import (
    LowRank,
    load_adapter,
    save_adapter,
    with_averages,
)
from scout_core.evaluation.training.base_weights import ready_model
from scout_core.evaluation.training.calibration import cloud_features
from scout_core.evaluation.training.corpus import Item, long_splits, short_splits
from scout_core.evaluation.training.scout import LAYERS, Scout
from scout_core.evaluation.training.scout_figures import (
    RETENTIONS,
    Scores,
    compare,
    head_scores,
    recall_in_runs,
    scored,
)
from scout_core.evaluation.training.scout_soup import WORD_SHARES, averaged_scout, with_words
from scout_core.evaluation.training.visit import Visit, note, open_visit
from scout_core.selection.readout import load_readout

LEXICAL = "lexical"
TUNE_WIDTHS = (1, 3, 5, 9, 15)


def load_scouts(folder: Path, device: torch.device) -> dict[str, Scout]:
    """Every scout of a folder by variant name; without an adapter file it reads words alone."""
    found: dict[str, Scout] = {}
    for path in sorted(folder.glob("readout-*.safetensors")):
        name = path.stem.removeprefix("readout-")
        beside = folder / f"scout-{name}.safetensors"
        adapter = load_adapter(beside, device) if beside.is_file() else None
        found[name] = Scout(adapter, load_readout(path, device), LAYERS)
    return found


def chosen_scout(
    visit: Visit, scouts: Mapping[str, Scout], words: Scout, tune: list[Item]
) -> tuple[str, Scout]:
    """The best mixture by the sum of its answer recalls on ``tune``, and its name."""
    found = with_averages(scouts, averaged_scout)
    by_words = scored(visit, words, tune)
    reached: dict[tuple[str, float], float] = {}
    for name, scout in found.items():
        alone = scored(visit, scout, tune)
        for share in WORD_SHARES:
            mixed = [
                (a + share * b).astype(np.float32) for a, b in zip(alone, by_words, strict=True)
            ]
            table = {kept: recall_in_runs(tune, mixed, kept) for kept in RETENTIONS}
            visit.figures[f"tune/{name}, words {share:g}"] = table
            note(f"tune {name}, words {share:g}: recall {table}")
            reached[name, share] = sum(table.values())
    name, share = max(reached, key=lambda pair: reached[pair])
    readout = with_words(found[name].readout, words.readout, share)
    return f"{name}, words {share:g}", Scout(found[name].adapter, readout, LAYERS)


def run(visit: Visit, cloud_path: Path, folder: Path) -> None:
    device = visit.base.embedding.device
    cloud: LowRank = load_adapter(cloud_path, device)
    scouts = load_scouts(folder, device)
    words = scouts.pop(LEXICAL)
    heads = load_file(str(folder / "cloud-heads.safetensors"))["heads"]
    short, long = short_splits(visit.data), long_splits(visit.data)
    model = ready_model(visit.base, visit.shape, cloud, visit.stop)
    tune = [item for item in visit.items(short.tune) if item.spans]
    best, kept = chosen_scout(visit, scouts, words, tune)
    visit.figures["kept"] = best
    if kept.adapter is not None:
        save_adapter(kept.adapter, visit.out / "scout.safetensors", {}, {})
    extra = {k: v.detach().cpu().contiguous() for k, v in kept.readout.tensors.items()}
    save_file(extra, str(visit.out / "readout.safetensors"))
    measured = {best: kept, LEXICAL: words}

    def selectors(items: list[Item]) -> dict[str, Scores]:
        generator = np.random.default_rng(0)
        seen = cloud_features(model, visit.prompter, items)
        noise = [generator.random(len(item.context)).astype(np.float32) for item in items]
        mine = {name: scored(visit, scout, items) for name, scout in measured.items()}
        return {**mine, "cloud": head_scores(seen, heads), "random": noise}

    answered = [item for item in tune if item.answers]
    note(f"kept {best}; on tune:")
    widths = {best: TUNE_WIDTHS, LEXICAL: (1,), "cloud": (1, 5), "random": (1,)}
    visit.figures["tune"] = compare(visit, model, answered, selectors(answered), widths)
    test = [item for item in visit.items(short.test) if item.answers]
    note("on test:")
    visit.figures["test"] = compare(visit, model, test, selectors(test), widths)
    longer = [item for item in visit.items(long.test) if item.answers]
    note("on long test:")
    few = {best: (1, 5, 15), LEXICAL: (1,), "cloud": (1,), "random": (1,)}
    visit.figures["long_test"] = compare(visit, model, longer, selectors(longer), few)


def main() -> None:
    parser = argparse.ArgumentParser(description="Pick a scout and measure it.")
    parser.add_argument("base", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--cloud", type=Path, required=True)
    parser.add_argument("--scouts", type=Path, required=True)
    options = parser.parse_args()
    visit = open_visit(options.base, options.data, options.out)
    try:
        run(visit, options.cloud, options.scouts)
    finally:
        text = json.dumps(visit.figures, indent=1)
        (visit.out / "scout-choice.json").write_text(text, encoding="utf-8")
        visit.pool.shutdown(cancel_futures=True)


if __name__ == "__main__":
    main()

"""What a scout is worth: its scores, the best smoothing, and F1 of both executions by selector.

Owns the figures of ``scout_visit`` and ``scout_choice``. Trains nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scout_core.evaluation.quality_answers import Model
from scout_core.evaluation.quality_batches import by_length
from scout_core.evaluation.training.corpus import Item
from scout_core.evaluation.training.scout import Scout, scout_scores
from scout_core.evaluation.training.selection_study import (
    Bench,
    answer_recall,
    as_rows,
    top_positions,
)
from scout_core.evaluation.training.visit import Visit, note
from scout_core.selection import select_runs

RETENTIONS = (0.5, 0.25, 0.1)
WIDTHS = (1, 3, 5, 9, 15, 25)
Scores = list[NDArray[np.float32]]


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


def in_runs(scores: Scores, retention: float) -> list[list[int]]:
    """The selections that the engine would make of these scores."""
    return [select_runs(torch.from_numpy(row), retention).tolist() for row in scores]


def recall_in_runs(items: Sequence[Item], scores: Scores, retention: float) -> float:
    """Answer recall of those."""
    return float(answer_recall(items, in_runs(scores, retention)).mean())


def selection_name(selector: str, retention: float, width: int) -> str:
    return f"{selector}@{retention}w{width}"


def compare(
    visit: Visit,
    model: Model,
    items: Sequence[Item],
    scores: Mapping[str, Scores],
    widths: Mapping[str, Sequence[int]],
) -> dict[str, Any]:
    """F1 of both executions, ratio to full context and recall, per selector, retention and width.

    Args:
        widths: smoothing widths to run, by selector.
    """
    whole = [list(range(len(item.context))) for item in items]
    selections: dict[str, list[list[int]]] = {"full": whole}
    recalls: dict[str, float] = {"full": 1.0}
    for name, rows in scores.items():
        for retention in RETENTIONS:
            for width in widths[name]:
                kept = [top_positions(row, retention, width) for row in rows]
                label = selection_name(name, retention, width)
                selections[f"{label}/evict"] = kept
                selections[f"{label}/sparse"] = kept
                recalls[label] = float(answer_recall(items, kept).mean())
    f1 = Bench(model, visit.prompter, items).f1(selections)
    full_f1 = float(f1["full"].mean())
    report: dict[str, Any] = {"n": len(items), "full": full_f1, "rows": {}}
    for name, values in f1.items():
        split: dict[str, float] = {}
        for source in sorted({item.source for item in items}):
            chosen = [index for index, item in enumerate(items) if item.source == source]
            split[source] = round(float(values[chosen].mean()), 4)
        mean, recall = float(values.mean()), recalls[name.split("/")[0]]
        ratio = mean / max(full_f1, 1e-9)
        report["rows"][name] = {"f1": mean, "ratio": ratio, "recall": recall, "sources": split}
        note(f"  {name:32s} f1 {mean:.4f} ratio {ratio:.4f} recall {recall:.3f} {split}")
    return report

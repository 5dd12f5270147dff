"""What a scout is trained on, and towards: questions by kind, and where its cloud looks.

Owns which questions take part and the teacher's distributions. Trains nothing.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from scout_core.evaluation.dataset import load_examples
from scout_core.evaluation.training.adapter import LowRank
from scout_core.evaluation.training.base_weights import ready_model
from scout_core.evaluation.training.calibration import cloud_features, fit_heads
from scout_core.evaluation.training.corpus import Item, Splits, writing_passages
from scout_core.evaluation.training.long_mix import (
    covid_examples,
    embedded_examples,
    supporting_examples,
)
from scout_core.evaluation.training.recurring_spans import recurring_span_examples
from scout_core.evaluation.training.scout_figures import Scores, head_scores
from scout_core.evaluation.training.visit import Visit

FEATURES_HELD = 2_000
"""Items whose attention over all heads is held in memory at once."""


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


def teacher_targets(scores: Scores, items: Sequence[Item]) -> dict[int, NDArray[np.float32]]:
    """Per item (by identity) the cloud's calibrated scores as a distribution."""
    out: dict[int, NDArray[np.float32]] = {}
    for row, item in zip(scores, items, strict=True):
        raised = np.exp(row - row.max())
        out[id(item)] = raised / raised.sum()
    return out


def taught(
    visit: Visit, cloud: LowRank, heads: torch.Tensor, items: Sequence[Item]
) -> dict[int, NDArray[np.float32]]:
    """``teacher_targets`` of many items, some at a time: their features are large."""
    model = ready_model(visit.base, visit.shape, cloud, visit.stop)
    out: dict[int, NDArray[np.float32]] = {}
    for first in range(0, len(items), FEATURES_HELD):
        part = items[first : first + FEATURES_HELD]
        seen = cloud_features(model, visit.prompter, part)
        out |= teacher_targets(head_scores(seen, heads), part)
    return out

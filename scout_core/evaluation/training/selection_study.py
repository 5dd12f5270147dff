"""Held-out figures for a cloud and many choosers of positions, on one device.

Owns: scores to kept positions, answer recall, and F1 of both executions for a list of retentions.
Used while training; ``scout eval quality`` measures any pair through the engine's models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scout_core.evaluation.metrics import answer_f1, per_question
from scout_core.evaluation.quality_answers import (
    Model,
    Prefix,
    continued_tails,
    evicted,
    prefill,
)
from scout_core.evaluation.quality_batches import by_length
from scout_core.evaluation.training.corpus import Item
from scout_core.evaluation.training.prompts import Prompter
from scout_core.selection import PoolKind, pooled, select_top

Floats = NDArray[np.float64]
MAX_ANSWER_TOKENS = 32


def top_positions(scores: NDArray[np.float32], retention: float, width: int) -> list[int]:
    """Sorted indices of the best positions after averaging over ``width`` neighbours."""
    wide = pooled(torch.from_numpy(np.ascontiguousarray(scores)), width, PoolKind.AVERAGE)
    return select_top(wide, retention).tolist()


def answer_recall(items: Sequence[Item], kept: Sequence[Sequence[int]]) -> Floats:
    """Share of the answer's tokens kept, of the best-kept occurrence; only items with a span."""
    found: list[float] = []
    for item, positions in zip(items, kept, strict=True):
        if not item.spans:
            continue
        chosen = set(positions)
        shares = [
            sum(p in chosen for p in range(begin, end)) / (end - begin) for begin, end in item.spans
        ]
        found.append(max(shares))
    return np.array(found)


@dataclass(slots=True)
class Bench:
    """Items with their full prefill held on the device, in slices."""

    model: Model
    prompter: Prompter
    items: Sequence[Item]
    token_budget: int = 240_000

    def slices(self) -> list[list[int]]:
        return by_length([len(item.context) + 90 for item in self.items], self.token_budget)

    def f1(self, selections: Mapping[str, Sequence[Sequence[int]]]) -> dict[str, Floats]:
        """F1 per question of every named selection; names ending in ``/sparse`` run sparse."""
        texts = self.answers(selections)
        golds = [item.answers for item in self.items]
        return {name: per_question(answer_f1, answers, golds) for name, answers in texts.items()}

    @torch.no_grad()
    def answers(self, selections: Mapping[str, Sequence[Sequence[int]]]) -> dict[str, list[str]]:
        """Answer texts of every named selection, in the items' order."""
        out: dict[str, list[str]] = {name: [""] * len(self.items) for name in selections}
        head = self.prompter.head()
        for index in self.slices():
            part = [self.items[i] for i in index]
            full = prefill(self.model, [[*head, *item.context] for item in part])
            tails = [self.prompter.tail(item.question) for item in part]
            starts = [len(head) + len(item.context) for item in part]
            for name, kept in selections.items():
                prefix = self._prefix(name, full, part, [kept[i] for i in index])
                answers = continued_tails(self.model, prefix, tails, starts, MAX_ANSWER_TOKENS)
                for place, ids in zip(index, answers, strict=True):
                    out[name][place] = self.prompter.text(ids).strip()
        return out

    def _prefix(
        self, name: str, full: Prefix, part: Sequence[Item], kept: Sequence[Sequence[int]]
    ) -> Prefix:
        head = self.prompter.head()
        columns = [[*range(len(head)), *(len(head) + p for p in positions)] for positions in kept]
        if not name.endswith("/sparse"):
            return evicted(full, columns)
        rows = [
            [*head, *(item.context[p] for p in positions)]
            for item, positions in zip(part, kept, strict=True)
        ]
        return prefill(self.model, rows, columns)


def as_rows(scores: Tensor, items: Sequence[Item]) -> list[NDArray[np.float32]]:
    """Per item its real scores as float32."""
    table = scores.float().cpu().numpy()
    return [table[index, : len(item.context)] for index, item in enumerate(items)]

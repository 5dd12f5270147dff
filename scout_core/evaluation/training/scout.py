"""Train the scout: rank the positions the cloud needs, from a third of its layers.

Owns the scout and how it is read from its files, its batches and its pointer loss. The target
spreads over the answer's tokens and their four neighbours on each side; where a cloud importance is
given, part of the target is that.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scout_core.evaluation.quality_batches import by_length
from scout_core.evaluation.quality_decoder import DecoderShape
from scout_core.evaluation.quality_probe import Gathered, Probe, gathered, scout_features
from scout_core.evaluation.training.adapter import Base, LowRank, load_adapter, merged
from scout_core.evaluation.training.corpus import Item
from scout_core.evaluation.training.prompts import Prompter
from scout_core.evaluation.training.readout import pointer_mass
from scout_core.selection.readout import Readout, lexical_channels, load_readout

LAYERS = 10


@dataclass(slots=True)
class Scout:
    """Adapter on the first layers and a readout; without an adapter it reads words alone."""

    adapter: LowRank | None
    readout: Readout
    layers: int

    def parameters(self) -> list[Tensor]:
        inner = [] if self.adapter is None else self.adapter.parameters()
        return [*inner, *self.readout.parameters()]


def opened(folder: Path, device: torch.device, dropout: float = 0.0) -> Scout:
    """The scout in ``scout.safetensors`` and ``readout.safetensors``, to use or to go on from.

    Raises:
        ProfileError: the readout cannot be read.
    """
    adapter = load_adapter(folder / "scout.safetensors", device)
    held = load_readout(folder / "readout.safetensors", device)
    tensors = {name: tensor.requires_grad_() for name, tensor in held.tensors.items()}
    return Scout(adapter, Readout(tensors, dropout), LAYERS)


def scout_probe(item: Item, prompter: Prompter) -> Probe:
    """Question, passage, question."""
    head = prompter.scout_head(item.question)
    tail = prompter.scout_tail(item.question)
    begin, end = len(head), len(head) + len(item.context)
    ids = [*head, *item.context, *tail]
    return Probe(ids, list(range(len(ids))), (begin, end), (end, len(ids)))


def cloud_probe(item: Item, prompter: Prompter) -> Probe:
    """The cloud's own prompt: passage, question."""
    head, tail = prompter.head(), prompter.tail(item.question)
    begin, end = len(head), len(head) + len(item.context)
    ids = [*head, *item.context, *tail]
    return Probe(ids, list(range(len(ids))), (begin, end), (end, len(ids)))


def lexical_batch(items: Sequence[Item], length: int, device: torch.device) -> Tensor:
    """Standardised lexical features ``[B, columns, n]``."""
    width = items[0].lexical.shape[1]
    table = np.zeros((len(items), length, width), dtype=np.float16)
    for index, item in enumerate(items):
        table[index, : len(item.context)] = item.lexical
    return torch.from_numpy(table).to(device).float().transpose(1, 2)


def scout_scores(
    base: Base,
    shape: DecoderShape,
    scout: Scout,
    items: Sequence[Item],
    prompter: Prompter,
    *,
    training: bool = False,
) -> tuple[Tensor, Gathered]:
    """Scores ``[B, n]`` over the passages."""
    device = base.embedding.device
    batch = gathered([scout_probe(item, prompter) for item in items], device)
    valid = batch.context_valid
    table = lexical_batch(items, batch.context.shape[1], device)
    features = lexical_channels(table, valid[:, None, :])
    if scout.adapter is None:
        hidden = torch.zeros((*valid.shape, base.embedding.shape[1]), device=device)
    else:
        weights = merged(base, scout.adapter, layers=scout.layers)
        seen, hidden = scout_features(weights, shape, batch)
        features = torch.cat((seen, features), dim=1)
    return scout.readout.scores(features, hidden, valid, training=training), batch


def pointer_targets(items: Sequence[Item], length: int, device: torch.device) -> Tensor:
    """Target distribution ``[B, n]``: answer tokens weigh 1, neighbours fall off linearly."""
    out = np.zeros((len(items), length), dtype=np.float32)
    for index, item in enumerate(items):
        out[index, : len(item.context)] = pointer_mass(item)
    return torch.from_numpy(out).to(device)


def pointer_loss(scores: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
    """Cross-entropy between the target distribution and the softmax of the scores."""
    logs = scores.log_softmax(-1).masked_fill(~valid, 0.0)
    return -(targets * logs).sum(-1).mean()


@dataclass(slots=True)
class ItemFeeder:
    """Endless batches of items with spans, sorted so that little is padding."""

    pools: Sequence[tuple[float, Sequence[Item]]]
    long_items: Sequence[Item]
    generator: random.Random
    token_budget: int = 18_000
    long_share: float = 0.15
    waiting: list[list[Item]] = field(default_factory=list[list[Item]])

    def batch(self) -> list[Item]:
        if not self.waiting:
            self._refill()
        return self.waiting.pop()

    def _refill(self) -> None:
        shares = [share for share, _ in self.pools]
        pools = self.generator.choices([items for _, items in self.pools], shares, k=480)
        drawn = [self.generator.choice(pool) for pool in pools]
        short = self._cut(drawn)
        batches = list(short)
        if self.long_items:
            wanted = max(1, round(len(short) * self.long_share / (1 - self.long_share)))
            longer = self._cut(self.generator.choices(self.long_items, k=14 * wanted))
            batches += self.generator.sample(longer, min(wanted, len(longer)))
        self.generator.shuffle(batches)
        self.waiting = batches

    def _cut(self, items: Sequence[Item]) -> list[list[Item]]:
        index = by_length([len(item.context) + 60 for item in items], self.token_budget)
        return [[items[i] for i in part] for part in index]

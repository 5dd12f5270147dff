"""Train the cloud adapter: answer from a passage, whole or in part, and leave chat alone.

Owns training batches and their loss. Of four kinds of row, answers after a whole and after a
*sparse* passage share batches; answers after an *evicted* one, which need a mask, have their own
(``cloud_rows`` says what they are). Every batch has some chat replies that must keep the base
model's distribution (KL to its own hidden states).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from scout_core.evaluation.quality_answers import padded
from scout_core.evaluation.quality_decoder import DecoderShape, Pass, hidden_states
from scout_core.evaluation.training.adapter import Base, LowRank, merged
from scout_core.evaluation.training.cloud_rows import Row, Selections
from scout_core.evaluation.training.corpus import Item
from scout_core.evaluation.training.readout import Watch


@dataclass(slots=True)
class Pointer:
    """An auxiliary reader of the cloud's attention: weights ``[layers · heads]``.

    Training it together with the adapter teaches the model's own heads to look at the answer.
    """

    weights: Tensor


def fresh_pointer(base: Base, shape: DecoderShape) -> Pointer:
    """Uniform over all heads."""
    count = shape.layers * shape.heads
    device = base.embedding.device
    return Pointer(torch.full((count,), 3.0 / count, device=device, requires_grad=True))


@dataclass(frozen=True, slots=True)
class Mixture:
    """Shares and sizes of what a batch is made of."""

    token_budget: int = 16_000
    selections: Selections = field(default_factory=lambda: Selections(sparse_share=0.3))
    long_share: float = 0.12
    chat_rows: int = 6
    chat_weight: float = 0.5
    pointer_weight: float = 0.0
    dropout: float = 0.0
    """Of attention weights."""
    short_limit: int = 700


def eviction_mask(rows: Sequence[Row], length: int, device: torch.device) -> Tensor | None:
    """What every column attends to, bool ``[B, 1, L, L]``: all before it, but what was evicted.

    None where nothing was.
    """
    if all(row.kept is None for row in rows):
        return None
    hidden = np.zeros((len(rows), length), dtype=np.bool_)
    for index, row in enumerate(rows):
        if row.kept is not None:
            hidden[index, slice(*row.context_at)] = True
            hidden[index, row.kept] = False
    tails = torch.tensor([row.context_at[1] for row in rows], device=device)
    columns = torch.arange(length, device=device)
    causal = columns <= columns[:, None]
    asking = columns >= tails[:, None]
    evicted = torch.from_numpy(hidden).to(device)[:, None, :] & asking[:, :, None]
    return (causal & ~evicted)[:, None]


def batch_loss(
    base: Base,
    shape: DecoderShape,
    trained: tuple[LowRank, Pointer | None],
    rows: Sequence[Row],
    mixture: Mixture,
) -> Tensor:
    """Mean answer cross-entropy, plus the weighted KL of chat rows and the pointer's loss."""
    adapter, pointer = trained
    device = base.embedding.device
    ids, _ = padded([row.ids for row in rows], device)
    positions, _ = padded([row.positions for row in rows], device)
    weights = merged(base, adapter, layers=shape.layers)
    watched = [index for index, row in enumerate(rows) if row.mass is not None]
    watch = None
    if pointer is not None and watched:
        part = [rows[index] for index in watched]
        index = torch.tensor(watched, device=device)
        watch = Watch([row.seen for row in part], [row.target_from - 1 for row in part], index)
    run = Pass(
        positions,
        mask=eviction_mask(rows, ids.shape[1], device),
        observe=None if watch is None else watch.observe,
        dropout=mixture.dropout,
    )
    out, _ = hidden_states(weights, shape, weights.embedding[ids], run)
    flat = out.reshape(-1, out.shape[-1])
    loss = _row_losses(base, shape, (weights.final_norm, flat, ids), rows, mixture)
    if watch is not None and pointer is not None:
        features, valid = watch.features()
        scores = (pointer.weights[None, :, None] * features).sum(1).masked_fill(~valid, -1e4)
        targets = torch.zeros_like(scores)
        for place, row in enumerate(rows[index] for index in watched):
            if row.mass is not None:
                targets[place, : len(row.mass)] = torch.from_numpy(row.mass).to(device)
        logs = scores.log_softmax(-1).masked_fill(~valid, 0.0)
        loss = loss - mixture.pointer_weight * (targets * logs).sum(-1).mean()
    return loss


def _row_losses(
    base: Base,
    shape: DecoderShape,
    forward: tuple[Tensor, Tensor, Tensor],
    rows: Sequence[Row],
    mixture: Mixture,
) -> Tensor:
    """Cross-entropy of answers and KL of chat; ``forward`` is (norm, hidden, ids)."""
    norm, flat, ids = forward
    device, targets = flat.device, ids.reshape(-1)
    answer_at: list[int] = []
    chat_at: list[int] = []
    for index, row in enumerate(rows):
        where = chat_at if row.teacher is not None else answer_at
        offset = index * ids.shape[1]
        where += range(offset + row.target_from - 1, offset + len(row.ids) - 1)
    loss = torch.zeros((), device=device)
    if answer_at:
        at = torch.tensor(answer_at, device=device)
        logits = _logits(norm, base, shape, flat[at])
        loss = functional.cross_entropy(logits, targets[at + 1])
    if chat_at:
        at = torch.tensor(chat_at, device=device)
        student = _logits(norm, base, shape, flat[at]).log_softmax(-1)
        held = torch.cat([row.teacher for row in rows if row.teacher is not None])
        teacher = functional.linear(held, base.embedding).float().log_softmax(-1)
        distance = (teacher.exp() * (teacher - student)).sum(-1).mean()
        loss = loss + mixture.chat_weight * distance
    return loss


def _logits(norm: Tensor, base: Base, shape: DecoderShape, hidden: Tensor) -> Tensor:
    normed = functional.rms_norm(hidden, (hidden.shape[-1],), norm, shape.norm_epsilon)
    return functional.linear(normed, base.embedding).float()


@dataclass(slots=True)
class Feeder:
    """Endless batches of rows: weighted pools of items, length-sorted so that little is padding."""

    pools: Sequence[tuple[float, Sequence[Item]]]
    long_items: Sequence[Item]
    chat: Sequence[Row]
    mixture: Mixture
    row_of: Callable[[Item, random.Random], Row]
    generator: random.Random
    waiting: list[list[Row]]

    def batch(self) -> list[Row]:
        if not self.waiting:
            self._refill()
        rows = self.waiting.pop()
        if self.chat and self.mixture.chat_rows:
            rows = [*rows, *self.generator.choices(self.chat, k=self.mixture.chat_rows)]
        return rows

    def _refill(self) -> None:
        mixture = self.mixture
        shares = [share for share, _ in self.pools]
        rows: list[Row] = []
        for pool in self.generator.choices([items for _, items in self.pools], shares, k=420):
            item = self.generator.choice(pool)
            if len(item.context) <= mixture.short_limit:
                rows.append(self.row_of(item, self.generator))
        short = packed(rows, mixture.token_budget)
        batches = list(short)
        if self.long_items and mixture.long_share > 0:
            wanted = max(1, round(len(short) * mixture.long_share / (1 - mixture.long_share)))
            drawn = [self.generator.choice(self.long_items) for _ in range(12 * wanted)]
            longer = [self.row_of(item, self.generator) for item in drawn]
            batches_of_long = packed(longer, mixture.token_budget)
            batches += self.generator.sample(batches_of_long, min(wanted, len(batches_of_long)))
        self.generator.shuffle(batches)
        self.waiting = batches


def packed(rows: Sequence[Row], token_budget: int) -> list[list[Row]]:
    """Batches of at most ``token_budget`` padded tokens, of like lengths and with or without
    eviction."""
    batches: list[list[Row]] = []
    for evicts in (False, True):
        current: list[Row] = []
        part = [row for row in rows if (row.kept is not None) is evicts]
        for row in sorted(part, key=lambda row: len(row.ids)):
            if current and len(row.ids) * (len(current) + 1) > token_budget:
                batches.append(current)
                current = []
            current.append(row)
        if current:
            batches.append(current)
    return batches

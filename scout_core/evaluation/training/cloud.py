"""Train the cloud adapter: answer from a passage, whole or gapped, and leave chat alone.

Owns the rows of a training batch and their loss. Three kinds of row share a batch: an answer
after the whole passage, an answer after a *sparse* passage (only some tokens, at their original
positions: what sparse execution sends), and a chat reply that must keep the base model's
distribution (KL to its own hidden states).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from scout_core.evaluation.quality_answers import padded
from scout_core.evaluation.quality_decoder import DecoderShape, Pass, hidden_states
from scout_core.evaluation.training.adapter import Base, LowRank, merged
from scout_core.evaluation.training.corpus import Item
from scout_core.evaluation.training.prompts import SYSTEM, Prompter
from scout_core.evaluation.training.readout import Watch, pointer_mass
from scout_core.selection.lexical import FEATURES

_DENSITY = FEATURES.index("density_5")


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence; the loss is on the tokens from ``target_from`` on."""

    ids: list[int]
    positions: list[int]
    target_from: int
    teacher: Tensor | None = None
    """Base model's normed hidden states ``[targets, hidden]`` where the row is chat."""
    context_at: tuple[int, int] = (0, 0)
    """Columns of the passage."""
    mass: NDArray[np.float32] | None = None
    """Where the answer is, as a distribution over the passage's columns."""


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
    sparse_share: float = 0.3
    long_share: float = 0.12
    chat_rows: int = 6
    chat_weight: float = 0.5
    pointer_weight: float = 0.0
    dropout: float = 0.0
    """Of attention weights."""
    short_limit: int = 700


def gapped(item: Item, generator: random.Random, low: float = 0.08, high: float = 0.6) -> list[int]:
    """Context indices a selector might keep: the answer's neighbourhood and likely other tokens."""
    count = len(item.context)
    wanted = max(6, round(count * generator.uniform(low, high)))
    density = item.lexical[:, _DENSITY].astype(np.float32)
    noise = np.random.default_rng(generator.getrandbits(32)).normal(size=count // 6 + 2)
    scores = density / (float(density.std()) + 1e-3) + 0.8 * np.repeat(noise, 6)[:count]
    if item.spans:
        begin, end = generator.choices(item.spans, item.weights)[0]
        reach = generator.randint(2, 8)
        scores[max(0, begin - reach) : end + reach] += 50.0
    return sorted(np.argsort(-scores, kind="stable")[:wanted].tolist())


def answer_row(
    item: Item, prompter: Prompter, generator: random.Random, sparse_share: float
) -> Row:
    """A training row of one question."""
    head = prompter.head() if generator.random() < 0.85 else prompter.head(SYSTEM)
    if generator.random() < sparse_share and (item.spans or not item.answers):
        kept = gapped(item, generator)
    else:
        kept = list(range(len(item.context)))
    tail = prompter.tail(item.question)
    answer = prompter.answer(item.target)
    start = len(head) + len(item.context)
    prefix = [*head, *(item.context[index] for index in kept)]
    after = [*tail, *answer]
    places = [*range(len(head)), *(len(head) + index for index in kept)]
    mass = None
    if item.spans:
        whole = pointer_mass(item)[kept]
        mass = whole / whole.sum() if whole.sum() > 0 else None
    return Row(
        ids=[*prefix, *after],
        positions=[*places, *range(start, start + len(after))],
        target_from=len(prefix) + len(tail),
        context_at=(len(head), len(prefix)),
        mass=mass,
    )


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
        watch = Watch(
            [row.context_at for row in part], [row.target_from - 1 for row in part], index
        )
    run = Pass(positions, observe=None if watch is None else watch.observe, dropout=mixture.dropout)
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
        rows.sort(key=lambda row: len(row.ids))
        short = packed(rows, mixture.token_budget)
        batches = list(short)
        if self.long_items and mixture.long_share > 0:
            wanted = max(1, round(len(short) * mixture.long_share / (1 - mixture.long_share)))
            drawn = [self.generator.choice(self.long_items) for _ in range(12 * wanted)]
            longer = [self.row_of(item, self.generator) for item in drawn]
            longer.sort(key=lambda row: len(row.ids))
            batches_of_long = packed(longer, mixture.token_budget)
            batches += self.generator.sample(batches_of_long, min(wanted, len(batches_of_long)))
        self.generator.shuffle(batches)
        self.waiting = batches


def packed(rows: Sequence[Row], token_budget: int) -> list[list[Row]]:
    """Rows sorted by length, cut into batches of at most ``token_budget`` padded tokens."""
    batches: list[list[Row]] = []
    current: list[Row] = []
    for row in rows:
        if current and len(row.ids) * (len(current) + 1) > token_budget:
            batches.append(current)
            current = []
        current.append(row)
    if current:
        batches.append(current)
    return batches

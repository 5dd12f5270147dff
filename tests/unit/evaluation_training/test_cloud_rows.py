"""Rows of the cloud's training: both executions of a selection, and whose selection it is."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from torch.nn import functional

from scout_core.evaluation.quality_answers import Model, evicted, prefill
from scout_core.evaluation.quality_decoder import (
    NORMS,
    PROJECTIONS,
    DecoderShape,
    Pass,
    hidden_states,
    logits_of,
)
from scout_core.evaluation.training.adapter import Base, LowRank, fresh, merged
from scout_core.evaluation.training.cloud import (
    Feeder,
    Mixture,
    batch_loss,
    eviction_mask,
    fresh_pointer,
)
from scout_core.evaluation.training.cloud_rows import (
    EVICT_LIMIT,
    LEAST_KEPT,
    MOST_KEPT,
    Row,
    Selections,
    answer_row,
    chosen,
)
from scout_core.evaluation.training.corpus import Item
from scout_core.evaluation.training.prompts import Prompter
from scout_core.selection.lexical import FEATURES

SHAPE = DecoderShape(2, 6, 2, 8, 10_000.0, 1e-5)
CPU = torch.device("cpu")
EVICT, SPARSE, WHOLE = Selections(0.0, 1.0), Selections(1.0), Selections(0.0)


@pytest.fixture(scope="module")
def base() -> Base:
    generator = torch.Generator().manual_seed(0)
    sizes = {"q": (48, 48), "k": (16, 48), "v": (16, 48), "o": (48, 48)}
    sizes |= {"gate": (80, 48), "up": (80, 48), "down": (48, 80)}
    stacks: dict[str, Tensor] = {name: torch.ones(2, 48) for name in NORMS}
    for name in PROJECTIONS:
        size = sizes[name.split(".")[1].removesuffix("_proj")]
        stacks[name] = 0.3 * torch.randn(2, *size, generator=generator)
    embedding = torch.randn(64, 48, generator=generator)
    return Base(stacks, embedding, torch.ones(48), torch.float32)


@pytest.fixture(scope="module")
def adapter(base: Base) -> LowRank:
    return fresh(base, layers=2, rank=2, alpha=4.0, seed=0)


@pytest.fixture(scope="module")
def prompter() -> Prompter:
    words = ["[UNK]", "<|im_end|>", "sea", "where", "unanswerable", "Passage:", "Question:"]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=words[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return Prompter(tokenizer)


def item(length: int = 40, answer: tuple[int, int] = (30, 33)) -> Item:
    context = random.Random(length).choices(range(8, 60), k=length)
    table = np.zeros((length, len(FEATURES)), dtype=np.float16)
    return Item(tuple(context), "where sea", ("sea",), (answer,), (1.0,), table, "s", "g")


def row_of(
    prompter: Prompter, selections: Selections, seed: int = 0, asked: Item | None = None
) -> Row:
    return answer_row(asked or item(), prompter, random.Random(seed), selections)


def served(model: Model, row: Row) -> Tensor:
    """Logits of the answer's tokens as eviction serves them: prefill, evict, then the tail."""
    begin, end = row.context_at
    kept = [*range(begin), *row.seen]
    prefix = evicted(prefill(model, [row.ids[:end]]), [kept])
    tail = torch.tensor([row.ids[end:]])
    steps = tail.shape[1]
    past = torch.ones(steps, len(kept), dtype=torch.bool)
    mask = torch.cat((past, torch.ones(steps, steps).tril().bool()), dim=1)[None, None]
    cache = prefix.cache.with_room(None, steps)
    run = Pass(torch.arange(end, end + steps)[None], mask=mask, past=cache)
    out, _ = hidden_states(model.weights, SHAPE, model.weights.embedding[tail], run)
    return logits_of(model.weights, SHAPE, out[0, row.target_from - end - 1 : -1])


def test_an_evict_row_trains_what_eviction_serves(
    base: Base, adapter: LowRank, prompter: Prompter
) -> None:
    model = Model(merged(base, None, layers=2), SHAPE, frozenset((1,)))
    rows = [row_of(prompter, EVICT, 1), row_of(prompter, EVICT, 2, item(25, (3, 6)))]
    rows.append(row_of(prompter, WHOLE, 3, item(33)))
    with torch.no_grad():
        logits = torch.cat([served(model, row) for row in rows])
        targets = torch.cat([torch.tensor(row.ids[row.target_from :]) for row in rows])
        wanted = functional.cross_entropy(logits, targets)
        found = batch_loss(base, SHAPE, (adapter, None), rows, Mixture())
        seeing_all = [replace(row, kept=None) for row in rows]
        other = batch_loss(base, SHAPE, (adapter, None), seeing_all, Mixture())
    assert torch.allclose(found, wanted, atol=1e-4)
    assert not torch.allclose(other, wanted, atol=1e-2)


def test_the_mask_gives_the_served_logits(base: Base, prompter: Prompter) -> None:
    model = Model(merged(base, None, layers=2), SHAPE, frozenset((1,)))
    row = row_of(prompter, EVICT, 4)
    ids = torch.tensor([row.ids])
    run = Pass(torch.tensor([row.positions]), mask=eviction_mask([row], ids.shape[1], CPU))
    with torch.no_grad():
        out, _ = hidden_states(model.weights, SHAPE, model.weights.embedding[ids], run)
        found = logits_of(model.weights, SHAPE, out[0, row.target_from - 1 : -1])
        assert torch.allclose(found, served(model, row), atol=1e-4)


def test_a_batch_without_eviction_needs_no_mask(prompter: Prompter) -> None:
    rows = [row_of(prompter, WHOLE), row_of(prompter, SPARSE)]
    assert eviction_mask(rows, 80, CPU) is None


def test_dropout_reaches_masked_attention(base: Base, adapter: LowRank, prompter: Prompter) -> None:
    rows = [row_of(prompter, EVICT)]
    dropped = Mixture(dropout=0.5)
    with torch.no_grad():
        losses = [
            float(batch_loss(base, SHAPE, (adapter, None), rows, mixture))
            for mixture in (Mixture(), Mixture(), dropped, dropped)
        ]
    assert losses[0] == losses[1]
    assert len(set(losses)) == 3


def test_the_pointer_is_taught_over_the_kept_columns_alone(
    base: Base, adapter: LowRank, prompter: Prompter
) -> None:
    rows = [row_of(prompter, EVICT, seed) for seed in range(40)]
    lost = [row for row in rows if row.mass is None]
    found = [row for row in rows if row.mass is not None]
    assert lost
    assert found
    for row in found:
        assert row.mass is not None
        assert row.kept is not None
        assert len(row.mass) == len(row.kept)
        assert float(row.mass.sum()) == pytest.approx(1.0, abs=1e-5)
    pointer = fresh_pointer(base, SHAPE)
    batch_loss(base, SHAPE, (adapter, pointer), rows, Mixture(pointer_weight=1.0)).backward()
    assert pointer.weights.grad is not None
    assert bool(pointer.weights.grad.isfinite().all())
    assert bool((pointer.weights.grad != 0).any())


def test_a_sparse_row_keeps_the_answer_and_an_evict_row_may_lose_it(prompter: Prompter) -> None:
    asked = item(100, (50, 52))
    low = np.linspace(0, 1, 100).astype(np.float16)
    low[40:62] = -20.0
    scores = {id(asked): low}

    def answer_there(selections: Selections) -> list[bool]:
        found: list[bool] = []
        for seed in range(60):
            row = row_of(prompter, selections, seed, asked)
            begin = row.context_at[0]
            # What a sparse row sees is all it has; its positions say which tokens those are.
            places = {row.positions[column] - begin for column in row.seen}
            found.append({50, 51} <= places)
        return found

    assert all(answer_there(Selections(1.0, 0.0, scores)))
    kept = answer_there(Selections(0.0, 1.0, scores))
    assert 15 < sum(kept) < 45


def test_a_selection_follows_the_scores(prompter: Prompter) -> None:
    asked = item(100, (50, 52))
    scores = np.zeros(100, dtype=np.float16)
    scores[20:30] = 5.0
    scores[48:54] = 5.0
    for seed in range(20):
        kept = chosen(asked, scores, random.Random(seed), answer_kept=False)
        assert kept == sorted(set(kept))
        assert LEAST_KEPT * 100 <= len(kept) <= MOST_KEPT * 100 + 1
        near = set(range(13, 37)) | set(range(41, 61))
        assert len(set(kept) & near) >= min(len(kept), 14) * 0.7
    several = {tuple(chosen(asked, scores, random.Random(s), answer_kept=False)) for s in range(9)}
    assert len(several) > 4


def test_long_passages_and_answers_that_are_nowhere_are_read_whole(prompter: Prompter) -> None:
    both = Selections(0.0, 1.0)
    assert row_of(prompter, both, 0, item(EVICT_LIMIT)).kept is not None
    assert row_of(prompter, both, 0, item(EVICT_LIMIT + 1)).kept is None
    unfound = replace(item(), spans=(), weights=())
    assert row_of(prompter, both, 0, unfound).kept is None
    assert len(row_of(prompter, both, 0, unfound).seen) == 40


def test_evict_rows_have_batches_of_their_own(prompter: Prompter) -> None:
    selections = Selections(0.3, 0.3)
    mixture = Mixture(token_budget=600, selections=selections, chat_rows=1)
    make: Callable[[Item, random.Random], Row] = lambda asked, generator: answer_row(  # noqa: E731
        asked, prompter, generator, selections
    )
    items = [item(length) for length in range(36, 60)]
    chat = [Row([1, 2, 3], [0, 1, 2], 1, torch.zeros(2, 48))]
    feeder = Feeder([(1.0, items)], items[:3], chat, mixture, make, random.Random(0), [])
    evicting, others = 0, 0
    for _ in range(60):
        rows = [row for row in feeder.batch() if row.teacher is None]
        kinds = {row.kept is not None for row in rows}
        assert len(kinds) == 1
        evicting += len(rows) * (kinds == {True})
        others += len(rows) * (kinds == {False})
        assert max(len(row.ids) for row in rows) * len(rows) <= 600
    assert 0.15 < evicting / (evicting + others) < 0.45

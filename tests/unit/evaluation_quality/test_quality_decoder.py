"""The batched decoder against transformers' own, and both executions against a mask."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from scout_core.evaluation.quality_answers import (
    Model,
    continued_tails,
    evicted,
    prefill,
    prefill_in_passes,
    question_attention,
    sparse_answers,
)
from scout_core.evaluation.quality_decoder import (
    NORMS,
    PROJECTIONS,
    DecoderShape,
    DecoderWeights,
    Pass,
    hidden_states,
    logits_of,
    stacked_weights,
)
from scout_core.evaluation.training.adapter import Base, fresh, load_adapter, merged, save_adapter

SHAPE = DecoderShape(3, 6, 2, 8, 10_000.0, 1e-5)
TAIL = [7, 8, 9]


@pytest.fixture(scope="module")
def reference() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        rms_norm_eps=1e-5,
        initializer_range=0.3,
        tie_word_embeddings=True,
        pad_token_id=None,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def model(reference: Any) -> Model:
    state: dict[str, torch.Tensor] = reference.state_dict()
    layer = {name: tensor.unbind(0) for name, tensor in stacked_weights(state, 3).items()}
    embedding = state["model.embed_tokens.weight"]
    weights = DecoderWeights(layer, embedding, embedding, state["model.norm.weight"])
    return Model(weights, SHAPE, frozenset({63}))


def _logits(model: Model, ids: list[int], mask: torch.Tensor | None = None) -> torch.Tensor:
    row = torch.tensor([ids])
    run = Pass(torch.arange(len(ids))[None], mask=mask)
    out, _ = hidden_states(model.weights, SHAPE, model.weights.embedding[row], run)
    return logits_of(model.weights, SHAPE, out)


def test_decoder_equals_transformers(reference: Any, model: Model) -> None:
    ids = [1, 5, 9, 13, 2, 40]
    with torch.no_grad():
        wanted = reference(torch.tensor([ids])).logits
        assert torch.allclose(_logits(model, ids), wanted, atol=1e-4)


def test_a_batch_answers_as_its_rows_alone(model: Model) -> None:
    rows, tails = [[1, 2, 3, 4, 5], [9, 8]], [[7], [6, 5, 4]]
    together = continued_tails(model, prefill(model, rows), tails, [5, 2], 6)
    for row, tail, answer in zip(rows, tails, together, strict=True):
        assert continued_tails(model, prefill(model, [row]), [tail], [len(row)], 6) == [answer]


def test_only_what_is_needed_of_the_last_layer_is_the_same(model: Model) -> None:
    row = torch.tensor([[1, 5, 9, 13, 2, 40], [4, 4, 8, 1, 0, 0]])
    places = torch.arange(6).expand(2, -1)
    embedded = model.weights.embedding[row]
    needed = torch.tensor([[5, 0], [3, 2]])
    mask = torch.ones(6, 6).tril().bool()[None, None].expand(2, -1, -1, -1)
    with torch.no_grad():
        whole, _ = hidden_states(model.weights, SHAPE, embedded, Pass(places))
        for given in (None, mask):
            run = Pass(places, mask=given, needed=needed)
            part, _ = hidden_states(model.weights, SHAPE, embedded, run)
            wanted = whole.gather(1, needed[:, :, None].expand(-1, -1, whole.shape[2]))
            assert torch.allclose(part, wanted, atol=1e-5)


def test_prefill_in_passes_is_the_same_prefill(model: Model) -> None:
    rows = [[1, 2, 3, 4, 5], [9, 8], [7, 7, 7]]
    whole, cut = prefill(model, rows), prefill_in_passes(model, rows, 5)
    assert torch.equal(whole.valid, cut.valid)
    real = whole.valid[:, None, :, None]
    for a, b in zip(whole.cache.keys, cut.cache.keys, strict=True):
        assert torch.allclose(a * real, b * real, atol=1e-5)


def test_evicted_rows_may_repeat_and_come_with_room(model: Model) -> None:
    prefix = prefill(model, [[1, 2, 3, 4], [5, 6]])
    kept, owners = [[0, 1], [0, 3], [1, 2]], [1, 0, 0]
    tails, starts = [TAIL] * 3, [2, 4, 4]
    roomy = evicted(prefix, kept, owners, room=len(TAIL) + 4)
    together = continued_tails(model, roomy, tails, starts, 4)
    for owner, columns, start, answer in zip(owners, kept, starts, together, strict=True):
        alone = evicted(prefix.rows([owner]), [columns])
        assert continued_tails(model, alone, [TAIL], [start], 4) == [answer]


def test_evict_equals_a_mask_over_the_full_pass(model: Model) -> None:
    context, kept = [1, 2, 3, 4, 5, 6], [0, 2, 5]
    answer = continued_tails(model, evicted(prefill(model, [context]), [kept]), [TAIL], [6], 1)
    length = len(context) + len(TAIL)
    mask = torch.ones(length, length).tril().bool()
    for column in set(range(6)) - set(kept):
        mask[6:, column] = False
    with torch.no_grad():
        wanted = int(_logits(model, [*context, *TAIL], mask[None, None])[0, -1].argmax())
    assert answer == [[wanted] if wanted != 63 else []]


def test_keeping_everything_is_the_same_in_both_executions(model: Model) -> None:
    context = [1, 2, 3, 4, 5, 6]
    full = prefill(model, [context])
    whole = evicted(full, [list(range(6))])
    answers = [continued_tails(model, p, [TAIL], [6], 5) for p in (full, whole)]
    sparse = sparse_answers(model, [[*context, *TAIL]], [range(9)], 5, 100)
    assert answers[0] == answers[1] == sparse


def test_question_attention_is_a_share(model: Model) -> None:
    prefix = prefill(model, [[1, 2, 3, 4], [5, 6]])
    seen = question_attention(model, prefix, [TAIL, [7]], [4, 2])
    assert [tuple(part.shape) for part in seen] == [(3, 6, 4), (3, 6, 2)]
    assert all(bool((part.sum(-1) <= 1.0).all()) for part in seen)


def test_a_fresh_adapter_changes_nothing_and_survives_its_file(
    reference: Any, model: Model, tmp_path: Any
) -> None:
    state: dict[str, torch.Tensor] = reference.state_dict()
    base = Base(
        stacked_weights(state, 3),
        state["model.embed_tokens.weight"],
        state["model.norm.weight"],
        torch.float32,
    )
    adapter = fresh(base, layers=3, rank=2, alpha=4.0, seed=0)
    plain, with_it = merged(base, None, layers=3), merged(base, adapter, layers=3)
    for name in (*PROJECTIONS, *NORMS):
        assert torch.equal(plain.layer[name][1], with_it.layer[name][1])
    with torch.no_grad():
        adapter.up[PROJECTIONS[0]].add_(0.5)
    save_adapter(adapter, tmp_path / "a.safetensors", {"role": "test"}, {})
    again = load_adapter(tmp_path / "a.safetensors", torch.device("cpu"))
    assert (again.rank, again.alpha) == (2, 4.0)
    assert torch.equal(again.up[PROJECTIONS[0]], adapter.up[PROJECTIONS[0]])
    changed = merged(base, again, layers=3).layer[PROJECTIONS[0]][0]
    assert not torch.equal(changed, plain.layer[PROJECTIONS[0]][0])

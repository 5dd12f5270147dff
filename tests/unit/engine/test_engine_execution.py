"""Prefill, evict, sparse and inject against plain transformers, for every family."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from scout_core.engine import Engine, KvCache, SamplingOptions
from scout_core.errors import (
    CodecError,
    ContextTooLongError,
    EmptyInputError,
    PositionsError,
)
from tests.support.tiny_models import (
    BLOCK_TOKENS,
    SLIDING,
    WINDOW_TOKENS,
    random_tokens,
    reference_logits,
    reference_model,
    save_tiny_model,
    tiny_engine,
)

PREFIX_TOKENS = 45
TAIL_TOKENS = 11
KEPT = (0, 1, 2, 3, 7, 8, 9, 17, 23, 24, 31, 40, 44)
TOLERANCE = 1e-4


def answer_logits(engine: Engine, cache: KvCache, tail: list[int], steps: int = 1) -> torch.Tensor:
    """Logits ``[steps, vocabulary]`` of a greedy answer."""
    decoder = engine.decoder(cache, tail, SamplingOptions(max_tokens=steps))
    rows: list[torch.Tensor] = []
    while decoder.step() is not None:
        assert decoder.last_logits is not None
        rows.append(decoder.last_logits)
    return torch.stack(rows)


def answer_ids(engine: Engine, cache: KvCache, tail: list[int], steps: int) -> list[int]:
    return answer_logits(engine, cache, tail, steps).argmax(dim=-1).tolist()


def prefilled(engine: Engine, tokens: list[int]) -> KvCache:
    cache = engine.new_cache()
    engine.prefill(cache, tokens)
    return cache


def causal(count: int) -> torch.Tensor:
    return torch.ones(count, count, dtype=torch.bool).tril()


def test_blockwise_prefill_equals_plain_transformers(
    family_engine: Engine, family_folder: Path
) -> None:
    prefix, tail = random_tokens(family_engine, PREFIX_TOKENS), random_tokens(family_engine, 11, 1)
    ours = answer_logits(family_engine, prefilled(family_engine, prefix), tail)[0]
    count = len(prefix) + len(tail)
    theirs = reference_logits(family_folder, prefix + tail, range(count), causal(count))[-1]
    torch.testing.assert_close(ours, theirs, atol=TOLERANCE, rtol=TOLERANCE)


def test_evicted_logits_equal_an_explicit_mask(family_engine: Engine, family_folder: Path) -> None:
    prefix = random_tokens(family_engine, PREFIX_TOKENS)
    tail = random_tokens(family_engine, TAIL_TOKENS, 1)
    evicted = family_engine.evict(prefilled(family_engine, prefix), KEPT)
    ours = answer_logits(family_engine, evicted, tail)[0]
    count = len(prefix) + len(tail)
    mask = causal(count)
    dropped = [index for index in range(PREFIX_TOKENS) if index not in KEPT]
    mask[PREFIX_TOKENS:, dropped] = False
    theirs = reference_logits(family_folder, prefix + tail, range(count), mask)[-1]
    torch.testing.assert_close(ours, theirs, atol=TOLERANCE, rtol=TOLERANCE)
    assert evicted.next_position == PREFIX_TOKENS
    assert evicted.positions.tolist() == list(KEPT)


def test_sparse_logits_equal_an_explicit_mask(family_engine: Engine, family_folder: Path) -> None:
    prefix = random_tokens(family_engine, PREFIX_TOKENS)
    tail = random_tokens(family_engine, TAIL_TOKENS, 1)
    kept = [prefix[index] for index in KEPT]
    sparse = family_engine.sparse_prefill(kept, KEPT, PREFIX_TOKENS)
    ours = answer_logits(family_engine, sparse, tail)[0]
    positions = [*KEPT, *range(PREFIX_TOKENS, PREFIX_TOKENS + TAIL_TOKENS)]
    theirs = reference_logits(family_folder, kept + tail, positions, causal(len(positions)))[-1]
    torch.testing.assert_close(ours, theirs, atol=TOLERANCE, rtol=TOLERANCE)


def test_evict_and_sparse_differ_from_each_other_and_from_full(llama: Engine) -> None:
    prefix, tail = random_tokens(llama, PREFIX_TOKENS), random_tokens(llama, TAIL_TOKENS, 1)
    full = prefilled(llama, prefix)
    kept = [prefix[index] for index in KEPT]
    sparse = llama.sparse_prefill(kept, KEPT, PREFIX_TOKENS)
    rows = [
        answer_logits(llama, cache, tail)[0] for cache in (full, llama.evict(full, KEPT), sparse)
    ]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert (rows[first] - rows[second]).abs().max() > 100 * TOLERANCE


def test_keeping_everything_is_the_full_context(family_engine: Engine) -> None:
    prefix = random_tokens(family_engine, PREFIX_TOKENS)
    tail = random_tokens(family_engine, TAIL_TOKENS, 1)
    full = prefilled(family_engine, prefix)
    everything = family_engine.evict(full, range(PREFIX_TOKENS))
    assert torch.equal(
        answer_logits(family_engine, everything, tail, 6),
        answer_logits(family_engine, full, tail, 6),
    )
    sparse = family_engine.sparse_prefill(prefix, range(PREFIX_TOKENS), PREFIX_TOKENS)
    assert answer_ids(family_engine, sparse, tail, 6) == answer_ids(family_engine, full, tail, 6)


def test_injected_bf16_kv_gives_the_local_run_bit_for_bit(family_folder: Path) -> None:
    edge = tiny_engine(family_folder, compute_dtype="bfloat16")
    cloud = tiny_engine(family_folder, compute_dtype="bfloat16")
    assert edge.fingerprint == cloud.fingerprint
    prefix, tail = random_tokens(edge, PREFIX_TOKENS), random_tokens(edge, TAIL_TOKENS, 1)
    received = cloud.new_cache()
    for start, kv in edge.prefill_blocks(edge.new_cache(), prefix):
        cloud.inject(received, start, kv.clone(memory_format=torch.contiguous_format))
    local = prefilled(cloud, prefix)
    assert torch.equal(received.tensor(0, PREFIX_TOKENS), local.tensor(0, PREFIX_TOKENS))
    assert torch.equal(
        answer_logits(cloud, received, tail, 8), answer_logits(cloud, local, tail, 8)
    )


def test_a_prefill_taken_over_at_a_block_boundary_is_bit_for_bit_the_same(
    llama_bf16: Engine,
) -> None:
    prefix = random_tokens(llama_bf16, PREFIX_TOKENS)
    local = prefilled(llama_bf16, prefix)
    taken_over = llama_bf16.new_cache()
    boundary = 3 * BLOCK_TOKENS
    llama_bf16.inject(taken_over, 0, local.tensor(0, boundary).clone())
    llama_bf16.prefill(taken_over, prefix[boundary:])
    assert torch.equal(taken_over.tensor(0, PREFIX_TOKENS), local.tensor(0, PREFIX_TOKENS))


def test_blocks_end_at_multiples_of_the_block_size(llama: Engine) -> None:
    cache = llama.new_cache()
    llama.prefill(cache, random_tokens(llama, 3))
    blocks = list(llama.prefill_blocks(cache, random_tokens(llama, 20, 1)))
    assert [(start, kv.shape[3]) for start, kv in blocks] == [(3, 5), (8, 8), (16, 7)]
    for start, kv in blocks:
        assert kv.shape == llama.geometry.shape(kv.shape[3])
        assert torch.equal(kv, cache.tensor(start, start + kv.shape[3]))


def test_selected_kv_in_several_calls_is_an_evicted_cache(llama: Engine) -> None:
    prefix, tail = random_tokens(llama, PREFIX_TOKENS), random_tokens(llama, TAIL_TOKENS, 1)
    full = prefilled(llama, prefix)
    received = llama.new_cache()
    for part in (KEPT[:5], KEPT[5:9], KEPT[9:]):
        kv = full.tensor(0, PREFIX_TOKENS)[:, :, :, list(part)]
        llama.inject_selected(received, part, kv, PREFIX_TOKENS)
    evicted = llama.evict(full, KEPT)
    assert received.positions.tolist() == evicted.positions.tolist()
    assert received.next_position == evicted.next_position
    assert torch.equal(
        answer_logits(llama, received, tail, 4), answer_logits(llama, evicted, tail, 4)
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_kv_that_is_not_finite_is_refused_and_leaves_the_cache_as_it_was(
    llama: Engine, value: float
) -> None:
    cache = prefilled(llama, random_tokens(llama, 8))
    kv = torch.zeros(llama.geometry.shape(4))
    kv[1, 0, 1, 2, 3] = value
    with pytest.raises(CodecError, match="not finite"):
        llama.inject(cache, 8, kv)
    assert cache.length == 8
    assert cache.next_position == 8


@pytest.mark.parametrize(
    "kv",
    [
        torch.zeros(3, 2, 2, 4, 15),
        torch.zeros(2, 2, 2, 4, 16),
        torch.zeros(3, 2, 2, 0, 16),
        torch.zeros(3, 2, 4, 16),
        torch.zeros(3, 2, 2, 4, 16, dtype=torch.int8),
    ],
)
def test_kv_of_a_wrong_shape_or_type_is_refused(llama: Engine, kv: torch.Tensor) -> None:
    with pytest.raises(CodecError):
        llama.inject(llama.new_cache(), 0, kv)


def test_kv_behind_a_gap_is_refused(llama: Engine) -> None:
    with pytest.raises(PositionsError, match="position 0 was due"):
        llama.inject(llama.new_cache(), 4, torch.zeros(llama.geometry.shape(4)))


@pytest.mark.parametrize("positions", [(), (3, 2), (2, 2), (-1, 4), (4, 45)])
def test_malformed_selections_are_refused(llama: Engine, positions: tuple[int, ...]) -> None:
    cache = prefilled(llama, random_tokens(llama, PREFIX_TOKENS))
    with pytest.raises(PositionsError):
        llama.evict(cache, positions)
    kv = torch.zeros(llama.geometry.shape(len(positions)))
    with pytest.raises(PositionsError):
        llama.inject_selected(llama.new_cache(), positions, kv, PREFIX_TOKENS)


def test_evicting_to_positions_that_were_never_stored_is_refused(llama: Engine) -> None:
    evicted = llama.evict(prefilled(llama, random_tokens(llama, PREFIX_TOKENS)), KEPT)
    with pytest.raises(PositionsError, match="does not hold"):
        llama.evict(evicted, (0, 4))


def test_a_sparse_prefill_needs_one_position_per_token(llama: Engine) -> None:
    with pytest.raises(PositionsError):
        llama.sparse_prefill(random_tokens(llama, 3), (0, 1), 10)


def test_tokens_beyond_the_window_or_the_vocabulary_are_refused(llama: Engine) -> None:
    with pytest.raises(ContextTooLongError):
        llama.prefill(llama.new_cache(), random_tokens(llama, WINDOW_TOKENS + 1))
    with pytest.raises(CodecError):
        llama.prefill(llama.new_cache(), [llama.vocabulary])
    with pytest.raises(EmptyInputError):
        llama.prefill(llama.new_cache(), [])


def test_a_configured_limit_is_below_the_window(llama_folder: Path) -> None:
    engine = tiny_engine(llama_folder, context_limit_tokens=32)
    assert engine.context_limit_tokens == 32
    with pytest.raises(ContextTooLongError) as caught:
        engine.prefill(engine.new_cache(), random_tokens(engine, 33))
    assert caught.value.details == {"needed_tokens": "33", "limit_tokens": "32"}


def test_windows_count_original_positions_and_transformers_makes_the_same_ones(
    tmp_path: Path,
) -> None:
    folder = save_tiny_model(tmp_path, SLIDING)
    engine = tiny_engine(folder)
    prefix, tail = random_tokens(engine, PREFIX_TOKENS), random_tokens(engine, TAIL_TOKENS, 1)
    cache = prefilled(engine, prefix)
    ours = answer_logits(engine, cache, tail)[0]
    with torch.no_grad():  # with no mask given, transformers makes the windowed ones itself
        theirs = reference_model(folder)(input_ids=torch.tensor([prefix + tail])).logits[0, -1]
    torch.testing.assert_close(ours, theirs, atol=TOLERANCE, rtol=TOLERANCE)

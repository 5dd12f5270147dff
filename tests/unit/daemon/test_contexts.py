"""The context store keeps its budget, forgets by age and never mixes tenants."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scout_core.daemon.contexts import ContextStore, context_hash
from scout_core.errors import OverloadedError, UnknownContextError
from scout_core.modes import ContextHash, TenantId

ALICE, BOB = TenantId("alice"), TenantId("bob")


@dataclass
class SizedBlock:
    nbytes: int


def key_of(tokens: tuple[int, ...]) -> ContextHash:
    return context_hash(tokens, "tokenizer")


def test_equal_contexts_of_two_tenants_never_meet() -> None:
    store: ContextStore[SizedBlock] = ContextStore(1_000, 60)
    store.put_tokens(ALICE, key_of((1, 2)), (1, 2), now=0)
    assert store.find(BOB, key_of((1, 2)), now=0) is None


def test_hash_depends_on_tokens_and_tokenizer() -> None:
    assert context_hash((1, 2), "a") != context_hash((1, 2), "b")
    assert context_hash((1, 2), "a") != context_hash((2, 1), "a")
    assert len(context_hash((1,), "a")) == 32


def test_least_recently_used_goes_first() -> None:
    store: ContextStore[SizedBlock] = ContextStore(24, 60)
    for token in (1, 2, 3):
        store.put_tokens(ALICE, key_of((token, token)), (token, token), now=token)
    store.find(ALICE, key_of((1, 1)), now=4)
    store.put_tokens(ALICE, key_of((4, 4)), (4, 4), now=5)
    assert store.find(ALICE, key_of((2, 2)), now=5) is None
    assert store.find(ALICE, key_of((1, 1)), now=5) is not None


def test_unused_contexts_expire_and_the_error_says_upload_again() -> None:
    store: ContextStore[SizedBlock] = ContextStore(1_000, 60)
    store.put_tokens(ALICE, key_of((1,)), (1,), now=0)
    with pytest.raises(UnknownContextError, match="upload it again"):
        store.get(ALICE, key_of((1,)), now=61)
    assert store.held_bytes == 0


def test_a_cache_beyond_the_budget_is_not_kept_but_its_tokens_are() -> None:
    store: ContextStore[SizedBlock] = ContextStore(100, 60)
    store.put_tokens(ALICE, key_of((1,)), (1,), now=0)
    assert not store.put_cache(ALICE, key_of((1,)), SizedBlock(101), now=0)
    assert store.get(ALICE, key_of((1,)), now=0).tokens == (1,)


def test_tokens_beyond_the_budget_are_refused() -> None:
    store: ContextStore[SizedBlock] = ContextStore(4, 60)
    with pytest.raises(OverloadedError, match="context_store_bytes"):
        store.put_tokens(ALICE, key_of((1, 2)), (1, 2), now=0)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 60), st.booleans()), max_size=60))
def test_held_bytes_are_exact_and_within_budget(
    operations: list[tuple[int, int, bool]],
) -> None:
    store: ContextStore[SizedBlock] = ContextStore(128, 1_000)
    for step, (token, size, with_cache) in enumerate(operations):
        tokens = (token,) * 3
        store.put_tokens(ALICE, key_of(tokens), tokens, now=step)
        if with_cache:
            store.put_cache(ALICE, key_of(tokens), SizedBlock(size), now=step)
        found = [store.find(ALICE, key_of((other,) * 3), now=step) for other in range(10)]
        held = sum([stored.nbytes for stored in found if stored is not None])
        assert store.held_bytes == held <= 128

"""What an engine is asked to keep or inject is ascending, unique and in range, or refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from scout_core.engine import Engine, KvCache
from scout_core.errors import PositionsError
from tests.support.tiny_models import random_tokens

PREFIX_TOKENS = 24
Operation = Callable[[Engine, KvCache, tuple[int, ...]], object]


def evict(engine: Engine, prefix: KvCache, positions: tuple[int, ...]) -> object:
    return engine.evict(prefix, positions)


def sparse_prefill(engine: Engine, _prefix: KvCache, positions: tuple[int, ...]) -> object:
    return engine.sparse_prefill(random_tokens(engine, len(positions)), positions, PREFIX_TOKENS)


def inject_selected(engine: Engine, prefix: KvCache, positions: tuple[int, ...]) -> object:
    kv = prefix.tensor(0, len(positions))
    return engine.inject_selected(engine.new_cache(), positions, kv, PREFIX_TOKENS)


OPERATIONS = (evict, sparse_prefill, inject_selected)


@pytest.fixture(scope="module")
def prefix(llama: Engine) -> KvCache:
    cache = llama.new_cache()
    llama.prefill(cache, random_tokens(llama, PREFIX_TOKENS))
    return cache


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    ("positions", "says"),
    [
        ((3, 2), "ascending"),
        ((0, 5, 4, 9), "ascending"),
        ((2, 2), "without repetition"),
        ((0, 1, 1), "without repetition"),
        ((-1,), r"outside 0\.\.23"),
        ((-1, 4), r"outside 0\.\.23"),
        ((PREFIX_TOKENS,), r"outside 0\.\.23"),
        ((4, 1 << 40), r"outside 0\.\.23"),
        ((), "keep at least one"),
    ],
)
def test_an_improper_selection_is_refused_by_every_operation(
    llama: Engine,
    prefix: KvCache,
    operation: Operation,
    positions: tuple[int, ...],
    says: str,
) -> None:
    with pytest.raises(PositionsError, match=says) as caught:
        operation(llama, prefix, positions)
    assert caught.value.reason == "POSITIONS_INVALID"
    assert prefix.positions.tolist() == list(range(PREFIX_TOKENS))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_outermost_positions_are_in_range(
    llama: Engine, prefix: KvCache, operation: Operation
) -> None:
    operation(llama, prefix, (0, PREFIX_TOKENS - 1))


def test_selected_kv_before_what_is_stored_is_refused_and_changes_nothing(
    llama: Engine, prefix: KvCache
) -> None:
    received = llama.new_cache()
    llama.inject_selected(received, (2, 7), prefix.tensor(0, 2), PREFIX_TOKENS)
    for passed in ((7, 9), (3, 9)):
        with pytest.raises(PositionsError, match=r"outside 8\.\.23"):
            llama.inject_selected(received, passed, torch.zeros_like(prefix.tensor(0, 2)), 24)
    assert received.positions.tolist() == [2, 7]


def test_positions_that_are_no_whole_numbers_are_refused_and_not_rounded(
    llama: Engine, prefix: KvCache
) -> None:
    with pytest.raises(PositionsError, match="whole numbers"):
        llama.evict(prefix, torch.tensor([0.5, 1.7]))

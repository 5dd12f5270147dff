"""Caches share storage without ever seeing each other's growth."""

from __future__ import annotations

import pytest
import torch

from scout_core.engine.kv_cache import SLACK_POSITIONS, KvCache
from scout_core.geometry import KvGeometry

GEOMETRY = KvGeometry(layers=2, kv_heads=2, head_dim=4)


def empty_cache(capacity: int = 0) -> KvCache:
    return KvCache(GEOMETRY, torch.float32, torch.device("cpu"), capacity)


def append(cache: KvCache, count: int, value: float) -> None:
    start = cache.next_position
    cache.reserve(count)
    cache.reserved(count).fill_(value)
    cache.commit(torch.arange(start, start + count), start + count)


def test_a_new_cache_is_empty() -> None:
    cache = empty_cache()
    assert (cache.length, cache.next_position, cache.positions.tolist()) == (0, 0, [])


@pytest.mark.parametrize("capacity", [0, 4, 100])
def test_a_fork_and_its_original_grow_apart(capacity: int) -> None:
    original = empty_cache(capacity)
    append(original, 4, 1.0)
    first, second = original.fork(), original.fork()
    append(first, 3, 2.0)
    append(second, 2, 3.0)
    append(original, 1, 4.0)
    assert [cache.length for cache in (original, first, second)] == [5, 7, 6]
    for cache, value in ((original, 4.0), (first, 2.0), (second, 3.0)):
        assert torch.equal(cache.tensor(0, 4), torch.full(GEOMETRY.shape(4), 1.0))
        assert bool((cache.tensor(4, cache.length) == value).all())


def test_a_view_keeps_its_content_while_the_cache_grows_and_moves() -> None:
    cache = empty_cache()
    append(cache, 4, 1.0)
    view = cache.tensor(0, 4)
    for value in range(20):
        append(cache, SLACK_POSITIONS, float(value))
    assert bool((view == 1.0).all())


def test_forking_copies_nothing_while_there_is_room() -> None:
    original = empty_cache(100)
    append(original, 4, 1.0)
    fork = original.fork()
    append(fork, 3, 2.0)
    assert fork.tensor(0, 4).data_ptr() == original.tensor(0, 4).data_ptr()


def test_an_abandoned_reservation_changes_nothing() -> None:
    cache = empty_cache()
    append(cache, 4, 1.0)
    cache.reserve(3)
    cache.reserved(3).fill_(9.0)
    assert cache.length == 4
    append(cache, 2, 2.0)
    assert bool((cache.tensor(4, 6) == 2.0).all())


def test_bytes_count_the_storage_really_held() -> None:
    cache = empty_cache(10)
    append(cache, 4, 1.0)
    assert cache.nbytes == 10 * GEOMETRY.elements_per_token * 4
    assert cache.fork().nbytes == cache.nbytes


def test_growth_leaves_at_most_a_quarter_or_the_slack_unused() -> None:
    cache = empty_cache()
    append(cache, 10_000, 1.0)
    unused = cache.nbytes / (GEOMETRY.elements_per_token * 4) - cache.length
    assert unused <= cache.length / 4


def test_gathered_entries_are_a_cache_of_their_own() -> None:
    cache = empty_cache()
    for value in range(5):
        append(cache, 1, float(value))
    kept = cache.gather(torch.tensor([0, 2, 4]))
    assert kept.positions.tolist() == [0, 2, 4]
    assert kept.next_position == 5
    assert kept.tensor(0, 3)[0, 0, 0, :, 0].tolist() == [0.0, 2.0, 4.0]
    append(kept, 1, 9.0)
    assert cache.length == 5


def test_entries_outside_the_cache_are_refused() -> None:
    cache = empty_cache()
    append(cache, 4, 1.0)
    with pytest.raises(IndexError):
        cache.tensor(0, 5)

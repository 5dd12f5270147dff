"""The queue between a stream's tasks: order, bound, deadlines and its end."""

from __future__ import annotations

import asyncio
import time

import pytest

from scout_core.rpc.bounded_queue import BoundedQueue, StreamEnded


async def test_items_leave_in_the_order_they_came() -> None:
    queue: BoundedQueue[int] = BoundedQueue(100)
    for item in range(5):
        await queue.put(item, 10)
    assert [await queue.get() for _ in range(5)] == [0, 1, 2, 3, 4]
    assert queue.held_bytes == 0


async def test_a_producer_waits_until_there_is_room() -> None:
    queue: BoundedQueue[str] = BoundedQueue(10)
    await queue.put("a", 8)
    waiting = asyncio.create_task(queue.put("b", 8))
    await asyncio.sleep(0)
    assert not waiting.done()
    assert await queue.get() == "a"
    await waiting
    assert queue.held_bytes == 8


async def test_an_offer_beyond_the_bound_is_declined_and_changes_nothing() -> None:
    queue: BoundedQueue[str] = BoundedQueue(10)
    assert queue.offer("a", 8)
    assert not queue.offer("b", 8)
    assert (len(queue), queue.held_bytes) == (1, 8)


async def test_an_item_larger_than_the_bound_is_admitted_alone() -> None:
    queue: BoundedQueue[str] = BoundedQueue(10)
    await queue.put("large", 50)
    assert not queue.offer("more", 1)
    assert await queue.get() == "large"


async def test_every_waiting_producer_is_woken_in_turn() -> None:
    queue: BoundedQueue[int] = BoundedQueue(10)
    await queue.put(0, 10)
    producers = [asyncio.create_task(queue.put(item, 10)) for item in (1, 2, 3)]
    taken = [await asyncio.wait_for(queue.get(), 5) for _ in range(4)]
    await asyncio.gather(*producers)
    assert taken == [0, 1, 2, 3]


async def test_a_deadline_in_the_past_returns_none_at_once_but_never_hides_an_item() -> None:
    queue: BoundedQueue[str] = BoundedQueue(10)
    past_s = time.monotonic() - 1.0
    assert await queue.get_until(past_s) is None
    queue.post("item")
    assert await queue.get_until(past_s) == "item"


async def test_waiting_ends_at_the_deadline() -> None:
    queue: BoundedQueue[str] = BoundedQueue(10)
    deadline_s = time.monotonic() + 0.02
    assert await queue.get_until(deadline_s) is None
    assert time.monotonic() >= deadline_s


async def test_an_item_wakes_a_consumer_that_waits_for_a_deadline() -> None:
    queue: BoundedQueue[str] = BoundedQueue(10)
    waiting = asyncio.create_task(queue.get_until(time.monotonic() + 60.0))
    await asyncio.sleep(0)
    queue.post("item")
    assert await asyncio.wait_for(waiting, 5) == "item"


async def test_a_cancelled_consumer_loses_no_item() -> None:
    queue: BoundedQueue[str] = BoundedQueue(10)
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.post("item")
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert await queue.get() == "item"


async def test_after_the_end_what_is_left_can_be_taken_and_nothing_added() -> None:
    queue: BoundedQueue[str] = BoundedQueue(10)
    await queue.put("last", 4)
    queue.close()
    with pytest.raises(StreamEnded):
        await queue.put("late", 1)
    assert await queue.get() == "last"
    with pytest.raises(StreamEnded):
        await queue.get()


async def test_the_end_wakes_whoever_waits() -> None:
    queue: BoundedQueue[str] = BoundedQueue(10)
    consumer = asyncio.create_task(queue.get())
    full: BoundedQueue[str] = BoundedQueue(1)
    full.post("a", 1)
    producer = asyncio.create_task(full.put("b", 1))
    await asyncio.sleep(0)
    queue.close()
    full.close()
    ended = await asyncio.wait_for(
        asyncio.gather(consumer, producer, return_exceptions=True), timeout=5
    )
    assert [type(error) for error in ended] == [StreamEnded, StreamEnded]

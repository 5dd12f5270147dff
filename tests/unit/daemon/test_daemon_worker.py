"""One torch thread: jobs run one at a time, in the order they came, never on the loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from scout_core.daemon.worker import TorchWorker
from scout_core.errors import OverloadedError


@pytest.fixture
async def worker() -> AsyncIterator[TorchWorker]:
    worker = TorchWorker()
    yield worker
    worker.close()


async def test_jobs_run_in_one_thread_of_their_own(worker: TorchWorker) -> None:
    threads = {await worker.run(threading.get_ident) for _ in range(3)}
    assert len(threads) == 1
    assert threading.get_ident() not in threads


async def test_result_and_error_of_a_job_come_back(worker: TorchWorker) -> None:
    assert await worker.run(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await worker.run(divmod, 7, 0)
    assert worker.queue_s >= 0.0


async def test_steps_of_concurrent_requests_take_turns(worker: TorchWorker) -> None:
    """A request submits its next step when the last is done: nobody runs twice in a row."""
    order: list[str] = []
    gate = threading.Event()
    blocked = asyncio.create_task(worker.run(gate.wait))

    async def request(name: str) -> None:
        for _ in range(5):
            await worker.run(order.append, name)

    requests = [asyncio.create_task(request(name)) for name in "abc"]
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(blocked, *requests)
    assert order == list("abc" * 5)


async def test_full_queue_refuses_with_retry_advice() -> None:
    worker = TorchWorker(queue_limit=2)
    gate = threading.Event()
    waiting = [asyncio.create_task(worker.run(gate.wait)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError, match="retry") as caught:
        await worker.run(gate.wait)
    assert "retry_after_s" in caught.value.details
    gate.set()
    await asyncio.gather(*waiting)
    assert await worker.run(int) == 0
    worker.close()


async def test_cancelled_caller_gives_its_place_back(worker: TorchWorker) -> None:
    gate = threading.Event()
    running = asyncio.create_task(worker.run(gate.wait))
    queued = asyncio.create_task(worker.run(int))
    await asyncio.sleep(0)
    queued.cancel()
    await asyncio.gather(queued, return_exceptions=True)
    assert queued.cancelled()
    gate.set()
    assert await running
    assert worker.queue_s == 0.0


async def test_queue_is_measured_in_expected_seconds(worker: TorchWorker) -> None:
    gate = threading.Event()
    running = asyncio.create_task(worker.run(gate.wait, 0.02))
    await running
    gate.clear()
    waiting = [asyncio.create_task(worker.run(gate.wait)) for _ in range(4)]
    await asyncio.sleep(0)
    # One measured job of at least 20 ms has a tenth of the weight.
    assert worker.queue_s >= 4 * 0.1 * 0.02 * 0.9
    gate.set()
    await asyncio.gather(*waiting)
    assert worker.queue_s == 0.0

"""The torch thread: one thread per process, jobs first come first served.

Fairness is in the size of the jobs: callers submit one prefill block or one decode step at a time,
so that the steps of concurrent requests interleave and none starves. Torch never runs on the event
loop. The queue's expected length feeds admission and the cost model.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from scout_core.errors import OverloadedError

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

SMOOTHING = 0.1
"""Weight of the newest job in the mean job time."""


class TorchWorker:
    """Runs callables one at a time in a thread of its own.

    Args:
        queue_limit: most jobs waiting at once; beyond it ``run`` refuses.
    """

    def __init__(self, queue_limit: int = 1_024) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="torch")
        self._queue_limit = queue_limit
        self._waiting = 0
        self._mean_job_s = 0.0

    @property
    def queue_s(self) -> float:
        """Expected seconds of work ahead of a job submitted now."""
        return self._waiting * self._mean_job_s

    async def run(
        self, job: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Result:
        """The job's result. A cancelled caller leaves a started job to finish unheard.

        Raises:
            OverloadedError: the queue is full.
        """
        if self._waiting >= self._queue_limit:
            raise OverloadedError(
                f"{self._waiting} jobs wait for the model; retry in a moment.",
                retry_after_s=round(self.queue_s, 2),
            )
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._executor, self._timed, job, args, kwargs
            )
        finally:
            self._waiting -= 1

    def _timed(
        self,
        job: Callable[..., Result],
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> Result:
        started_s = time.monotonic()
        try:
            return job(*args, **kwargs)
        finally:
            elapsed_s = time.monotonic() - started_s
            self._mean_job_s += SMOOTHING * (elapsed_s - self._mean_job_s)

    def close(self) -> None:
        """Waits for the running job; drops the queued ones."""
        self._executor.shutdown(wait=True, cancel_futures=True)

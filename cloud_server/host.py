"""The model and what surrounds it: the torch thread, the context store, measured costs.

One per process. Servicers share it; it knows nothing about streams.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from scout_core.codec.transform_basis import TransformBasis
from scout_core.control.cost import CostModel, Stage
from scout_core.daemon.contexts import ContextStore, context_hash
from scout_core.daemon.models import describe_model
from scout_core.daemon.worker import TorchWorker
from scout_core.engine import Engine, KvCache
from scout_core.errors import DrainingError, OverloadedError
from scout_core.modes import ContextHash, TenantId
from scout_core.rpc.registration import ModelDescription, StageCostFigure

RETRY_AFTER_DRAIN_S = 5.0
RETRY_AFTER_OVERLOAD_S = 0.5


@dataclass(slots=True)
class ModelHost:
    """Everything that computing an answer needs."""

    engine: Engine
    worker: TorchWorker
    contexts: ContextStore[KvCache]
    max_requests: int
    payload_budget_bytes: int
    transform: TransformBasis | None = None
    """Calibrated for the model's KV, if there is one."""
    cost_model: CostModel = field(default_factory=CostModel)
    sessions_in_progress: int = 0
    reserved_payload_bytes: int = 0
    draining: bool = False
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while no request is in progress."""

    def __post_init__(self) -> None:
        self.idle.set()

    @property
    def description(self) -> ModelDescription:
        return describe_model(self.engine, self.transform.digest if self.transform else "")

    def costs(self) -> tuple[StageCostFigure, ...]:
        return tuple(
            StageCostFigure(cost.stage.value, cost.base_s, cost.per_token_s, cost.samples)
            for cost in self.cost_model.costs()
        )

    def admit(self) -> None:
        """Raises:
        DrainingError: the server is shutting down.
        OverloadedError: as many requests as allowed are in progress.
        """
        if self.draining:
            raise DrainingError(
                "This server is shutting down; retry elsewhere or in a few seconds.",
                retry_after_s=RETRY_AFTER_DRAIN_S,
            )
        if self.sessions_in_progress >= self.max_requests:
            raise OverloadedError(
                f"{self.sessions_in_progress} requests are in progress, the limit; retry soon.",
                retry_after_s=RETRY_AFTER_OVERLOAD_S,
            )

    def reserve(self, payload_bytes: int) -> Reservation:
        """Holds a place and payload memory for one request until it is released.

        Raises:
            DrainingError, OverloadedError: as ``admit``, or the payload memory is promised away.
        """
        self.admit()
        if self.reserved_payload_bytes + payload_bytes > self.payload_budget_bytes:
            raise OverloadedError(
                f"Payloads of {self.reserved_payload_bytes} bytes are under way and this one may "
                f"need {payload_bytes}; the limit is {self.payload_budget_bytes}. Retry soon, use "
                "scout mode, or raise payload_budget_bytes.",
                retry_after_s=RETRY_AFTER_OVERLOAD_S,
            )
        return Reservation(self, payload_bytes)

    def hash_of(self, tokens: tuple[int, ...]) -> ContextHash:
        return context_hash(tokens, self.engine.tokenizer_fingerprint)

    async def full_cache(
        self, tenant: TenantId, key: ContextHash, tokens: tuple[int, ...]
    ) -> KvCache:
        """The cache of head and context, from the store or by blockwise prefill.

        Each block is one job of the torch thread, so that other requests' steps run in between.
        The caller gets a fork and may append to it.
        """
        stored = self.contexts.find(tenant, key, time.monotonic())
        if stored is not None and stored.cache is not None:
            return stored.cache.fork()
        started_s = time.monotonic()
        cache = self.engine.new_cache()
        await self.extend(cache, (*self.engine.prompt.head_tokens, *tokens))
        self.cost_model.observe(Stage.CLOUD_PREFILL, len(tokens), time.monotonic() - started_s)
        self.contexts.put_cache(tenant, key, cache.fork(), time.monotonic())
        return cache

    async def extend(self, cache: KvCache, tokens: tuple[int, ...]) -> None:
        """Blockwise prefill of ``tokens`` at the end of ``cache``."""
        blocks = self.engine.prefill_blocks(cache, tokens)
        while await self.worker.run(next, blocks, None) is not None:
            pass


class Reservation:
    """A place among the requests in progress and a share of the payload memory."""

    def __init__(self, host: ModelHost, payload_bytes: int) -> None:
        self._host: ModelHost | None = host
        self._payload_bytes = payload_bytes
        host.sessions_in_progress += 1
        host.idle.clear()
        host.reserved_payload_bytes += payload_bytes

    def release(self) -> None:
        """Gives both back; more than once is harmless."""
        if self._host is not None:
            self._host.sessions_in_progress -= 1
            self._host.reserved_payload_bytes -= self._payload_bytes
            if self._host.sessions_in_progress == 0:
                self._host.idle.set()
            self._host = None

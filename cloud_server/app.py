"""The cloud daemon put together: model, stores, servicers, one server."""

from __future__ import annotations

import asyncio
import gc
from typing import Final

import structlog

from cloud_server.agents import AgentRegistry
from cloud_server.control_servicer import ControlServicer
from cloud_server.host import RETRY_AFTER_DRAIN_S, ModelHost
from cloud_server.inference_servicer import InferenceServicer
from cloud_server.message_limit import largest_message_bytes
from cloud_server.metrics import CloudMetrics
from cloud_server.settings import CloudSettings
from cloud_server.stream_window import stream_window_bytes
from cloud_server.transport_servicer import TransportServicer
from cloud_server.uplink import Uplink
from cloud_server.warm_up import warm_up
from scout_core.codec.bases import configured_basis
from scout_core.daemon.contexts import ContextStore
from scout_core.daemon.models import load_engine
from scout_core.daemon.worker import TorchWorker
from scout_core.rpc.channel import RpcServer, TlsFiles
from scout_core.rpc.handlers import (
    control_handler,
    inference_handler,
    status_handler,
    transport_handler,
)

COLLECTOR_THRESHOLDS: Final = (2_000, 20, 50)
"""Objects, then young and middle collections; Python's own are 700, 10 and 10."""
log = structlog.get_logger("scout.cloud")


class CloudServer:
    """The application object of ``scout-cloud``; see ``scout_core.daemon.lifecycle.Daemon``."""

    def __init__(self, settings: CloudSettings) -> None:
        self.settings = settings
        self.port = 0
        self.applications_port = 0
        window_bytes = stream_window_bytes(
            settings.uplink_capacity_bytes_per_s, settings.uplink_round_trip_s
        )
        self._server = RpcServer(
            settings.write_timeout_s, window_bytes, largest_message_bytes(settings)
        )
        self._applications = (
            RpcServer(settings.write_timeout_s) if settings.applications_listen else None
        )
        self._worker = TorchWorker()
        self._control: ControlServicer | None = None
        self._transport: TransportServicer | None = None
        self._scheduling: asyncio.Task[None] | None = None
        self.host: ModelHost | None = None
        self.metrics = CloudMetrics()
        self.metrics_port = 0
        self.uplink = Uplink(settings, self.metrics)

    @property
    def live_sessions(self) -> int:
        """As ``TransportServicer.live_sessions``."""
        return self._transport.live_sessions if self._transport is not None else 0

    async def start(self) -> str:
        settings = self.settings
        engine = await self._worker.run(load_engine, settings.model, settings)
        host = self.host = ModelHost(
            engine=engine,
            worker=self._worker,
            contexts=ContextStore(settings.context_store_bytes, settings.context_ttl_s),
            max_requests=settings.max_requests,
            payload_budget_bytes=settings.payload_budget_bytes,
            transform=await self._worker.run(
                configured_basis, settings.transform, engine.fingerprint
            ),
        )
        await self._worker.run(warm_up, engine, host.transform, host.cost_model)
        await self._serve(host)
        self._scheduling = asyncio.create_task(self.uplink.run())
        self._show_metrics(host)
        _spare_the_collector()
        return (
            f"{settings.server_id} serves {engine.name} ({engine.compute_dtype}) on "
            f"{settings.listen.rsplit(':', 1)[0]}:{self.port}"
        )

    async def _serve(self, host: ModelHost) -> None:
        settings = self.settings
        control = self._control = ControlServicer(settings, host, AgentRegistry(), self.uplink)
        self._transport = TransportServicer(settings, host, self.uplink, self.metrics)
        inference = InferenceServicer(settings, host)
        self._server.grpc_server.add_generic_rpc_handlers(
            (
                control_handler(control),
                transport_handler(self._transport),
                inference_handler(inference),
            )
        )
        tls = TlsFiles(settings.tls_certificate, settings.tls_key, settings.tls_authority)
        self.port = self._server.listen(settings.listen, tls)
        await self._server.start()
        if self._applications is not None and settings.applications_listen is not None:
            self._applications.grpc_server.add_generic_rpc_handlers(
                (inference_handler(inference), status_handler(control))
            )
            self.applications_port = self._applications.listen(settings.applications_listen, tls)
            await self._applications.start()
            log.info("applications_served", port=self.applications_port)

    @property
    def _servers(self) -> tuple[RpcServer, ...]:
        return tuple(s for s in (self._server, self._applications) if s is not None)

    def _show_metrics(self, host: ModelHost) -> None:
        watch = self.metrics.watch
        watch("sessions", "Requests in progress.", lambda: host.sessions_in_progress)
        watch("worker_queue_seconds", "Work ahead of a new job.", lambda: host.worker.queue_s)
        watch("contexts", "Contexts held.", lambda: len(host.contexts))
        watch("context_store_bytes", "Memory of contexts.", lambda: host.contexts.held_bytes)
        watch("agents", "Agents attached.", lambda: self.uplink.attached_agents)
        if self.settings.metrics_listen is not None:
            self.metrics_port = self.metrics.serve(self.settings.metrics_listen)
            log.info("metrics_served", port=self.metrics_port)

    async def drain(self) -> None:
        """Health, then notices, then a bounded wait for the sessions in progress."""
        if self.host is None or self._control is None:
            return
        self.host.draining = True
        for server in self._servers:
            await server.refuse_new_calls()
        await self._control.announce_drain("shutdown", RETRY_AFTER_DRAIN_S)
        try:
            async with asyncio.timeout(self.settings.drain_timeout_s):
                await self.host.idle.wait()
        except TimeoutError:
            log.warning("drain_cut_short", sessions=self.host.sessions_in_progress)

    async def close(self) -> None:
        if self._transport is not None:
            await self._transport.close()
        await asyncio.gather(*(server.stop(grace_s=0.5) for server in self._servers))
        if self._scheduling is not None:
            self._scheduling.cancel()
            await asyncio.gather(self._scheduling, return_exceptions=True)
        self.metrics.close()
        self._worker.close()


def _spare_the_collector() -> None:
    """What the libraries and the model hold stays for good: looking through it stops the loop for
    0.2 s at a time. A thousand agents' own objects take 70 ms, so they are looked through seldom
    (tests/bench/bench_allocation_attached.py)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTOR_THRESHOLDS)

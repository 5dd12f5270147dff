"""The edge daemon put together: models, channels, attachment, servicer, one server."""

from __future__ import annotations

import asyncio

import structlog

from edge_agent.attachment import AgentActivity, Attachment
from edge_agent.host import EdgeHost
from edge_agent.hosting import load_host
from edge_agent.inference_servicer import InferenceServicer
from edge_agent.settings import EdgeSettings
from edge_agent.warm_up import warm_up
from scout_core.control.probe import ProbeBudget, ProbeSettings
from scout_core.daemon.worker import TorchWorker
from scout_core.errors import LocalProtocolError, PeerTimeoutError
from scout_core.rpc.channel import RpcServer, TlsFiles, open_channel
from scout_core.rpc.handlers import inference_handler, status_handler
from scout_core.rpc.options import ChannelRole

log = structlog.get_logger("scout.edge")


class EdgeAgent:
    """The application object of ``scout-edge``; see ``scout_core.daemon.lifecycle.Daemon``."""

    def __init__(self, settings: EdgeSettings) -> None:
        self.settings = settings
        self.port = 0
        self._tls = TlsFiles(settings.tls_certificate, settings.tls_key, settings.tls_authority)
        to_cloud = TlsFiles(
            settings.cloud_tls_certificate, settings.cloud_tls_key, settings.cloud_tls_authority
        )
        self._server = RpcServer(settings.write_timeout_s)
        self._worker = TorchWorker()
        self._control_channel = open_channel(settings.cloud, ChannelRole.CONTROL, to_cloud)
        self._data_channel = open_channel(settings.cloud, ChannelRole.DATA, to_cloud)
        self._servicer: InferenceServicer | None = None
        self._attachment: Attachment | None = None
        self._host: EdgeHost | None = None
        self._attaching: asyncio.Task[None] | None = None

    async def start(self) -> str:
        settings = self.settings
        host, models = await self._worker.run(load_host, settings, self._worker)
        self._host = host
        await self._worker.run(warm_up, host)
        attachment = self._attachment = Attachment(
            settings=settings,
            channel=self._control_channel,
            models=models,
            estimator=host.estimator,
            activity=AgentActivity(),
            probe_budget=ProbeBudget(
                ProbeSettings(
                    bytes_per_minute=settings.probe_bytes_per_minute,
                    metered=settings.metered,
                    idle_after_s=settings.probe_idle_s,
                )
            ),
        )
        self._servicer = InferenceServicer(host, attachment, self._data_channel)
        self._server.grpc_server.add_generic_rpc_handlers(
            (inference_handler(self._servicer), status_handler(self._servicer))
        )
        self.port = self._server.listen(settings.listen, self._tls)
        await self._server.start()
        self._attaching = asyncio.create_task(attachment.run())
        return (
            f"{settings.agent_id} serves on {settings.listen.rsplit(':', 1)[0]}:{self.port} "
            f"for the cloud at {settings.cloud}"
        )

    def require_host(self) -> EdgeHost:
        """Models, stores and estimator of a started agent.

        Raises:
            LocalProtocolError: not started yet.
        """
        if self._host is None:
            raise LocalProtocolError("Start the agent before asking for its host.")
        return self._host

    async def wait_attached(self, timeout_s: float) -> None:
        """Returns once the cloud has accepted this agent.

        Raises:
            PeerTimeoutError: it has not within ``timeout_s``.
        """
        if self._attachment is None:
            raise LocalProtocolError("Start the agent before waiting for its cloud.")
        try:
            async with asyncio.timeout(timeout_s):
                await self._attachment.attached.wait()
        except TimeoutError:
            raise PeerTimeoutError(
                f"The cloud at {self.settings.cloud} did not accept this agent within "
                f"{timeout_s:g} s; check the address and that it runs."
            ) from None

    async def drain(self) -> None:
        """Health, then a bounded wait for the requests in flight."""
        if self._servicer is None:
            return
        self._servicer.draining = True
        await self._server.refuse_new_calls()
        try:
            async with asyncio.timeout(self.settings.drain_timeout_s):
                await self._servicer.idle.wait()
        except TimeoutError:
            log.warning("drain_cut_short")

    async def close(self) -> None:
        if self._attaching is not None:
            self._attaching.cancel()
            await asyncio.gather(self._attaching, return_exceptions=True)
        await self._server.stop(grace_s=0.5)
        await self._control_channel.close()
        await self._data_channel.close()
        self._worker.close()

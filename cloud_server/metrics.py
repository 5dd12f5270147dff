"""What the cloud server counts, for Prometheus, and the HTTP endpoint that shows it.

Label values are bounded: groups are the configured ones, tenants the first few that come, modes and
outcomes closed sets. Nothing here names a session or an agent: those are in the log. It decides
nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from scout_core.allocation.events import Grant, Reject, Report
from scout_core.allocation.group import GroupStatus
from scout_core.errors import SettingsError
from scout_core.modes import Mode, TenantId

PREFIX: Final = "scout_cloud_"
MAX_TENANTS: Final = 32
OTHER_TENANTS: Final = "other"
UNSCHEDULED: Final = "unscheduled"
"""The group label of sessions whose uplink is not scheduled."""
SOLVE_BUCKETS_S: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
DECISION_BUCKETS_S: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0)


class CloudMetrics:
    """All metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._tenants: set[TenantId] = set()
        self._endpoint: tuple[WSGIServer, threading.Thread] | None = None
        group, owner = ("group",), ("group", "tenant")
        self._capacity = self._gauge("uplink_capacity_bytes_per_second", "What it carries.", group)
        self._granted = self._gauge("uplink_granted_bytes_per_second", "Promised of it.", group)
        self._queue = self._gauge("uplink_requests", "Live requests.", ("group", "standing"))
        self._grants = self._counter(
            "uplink_grants", "Shares given, changed or renewed.", (*owner, "mode")
        )
        self._recommended = self._counter(
            "uplink_recommendations", "Offers chosen for new sessions.", (*owner, "mode")
        )
        self._rejects = self._counter(
            "uplink_rejections", "Requests turned away.", (*owner, "cause")
        )
        self._reports = self._counter(
            "uplink_reports", "Deadlines lost, leases expired, misconduct.", ("group", "kind")
        )
        self._turned_away = self._counter(
            "uplink_opens_kept_out", "Sessions refused to agents that are kept out.", group
        )
        self._received = self._counter(
            "uplink_received_bytes", "Payload of scheduled sessions.", group
        )
        self._first_tokens = self._counter(
            "first_tokens", "First answer tokens, by deadline met.", (*owner, "mode", "deadline")
        )
        self._sessions = self._counter("sessions_ended", "Sessions, by their end.", ("outcome",))
        self.solve_s = self._histogram(
            "uplink_solve_seconds", "Time of one allocation.", SOLVE_BUCKETS_S
        )
        self.decision_s = self._histogram(
            "uplink_decision_seconds", "From open to the first share.", DECISION_BUCKETS_S
        )

    def watch(self, metric: str, description: str, value: Callable[[], float]) -> None:
        """A gauge that is read when it is asked for; from another thread, so a plain number."""
        Gauge(PREFIX + metric, description, registry=self.registry).set_function(value)

    def granted(self, group: str, tenant: TenantId, grant: Grant) -> None:
        self._grants.labels(group, self._tenant(tenant), grant.mode.value).inc()

    def recommended(self, group: str, tenant: TenantId, mode: Mode) -> None:
        self._recommended.labels(group, self._tenant(tenant), mode.value).inc()

    def rejected(self, group: str, tenant: TenantId, reject: Reject) -> None:
        self._rejects.labels(group, self._tenant(tenant), reject.cause.value).inc()

    def reported(self, group: str, report: Report) -> None:
        self._reports.labels(group, report.kind.value).inc()

    def turned_away(self, group: str) -> None:
        self._turned_away.labels(group).inc()

    def received(self, group: str, size_bytes: int) -> None:
        self._received.labels(group).inc(size_bytes)

    def first_token(
        self, group: str | None, tenant: TenantId, mode: Mode, *, in_time: bool
    ) -> None:
        """``mode`` is how the payload ended; ``group`` None: not scheduled."""
        deadline = "met" if in_time else "missed"
        tenant_label = self._tenant(tenant)
        self._first_tokens.labels(group or UNSCHEDULED, tenant_label, mode.value, deadline).inc()

    def session_ended(self, outcome: str) -> None:
        """``outcome`` is OK, CANCELLED or a reason of ``scout_core.errors``."""
        self._sessions.labels(outcome).inc()

    def uplinks(self, statuses: tuple[GroupStatus, ...]) -> None:
        """The state of every group after a solve."""
        for status in statuses:
            self._capacity.labels(status.group).set(status.capacity_bytes_per_s)
            self._granted.labels(status.group).set(status.granted_bytes_per_s)
            self._queue.labels(status.group, "late").set(status.late)
            self._queue.labels(status.group, "in_time").set(status.requests - status.late)

    def serve(self, address: str) -> int:
        """Answers GET /metrics on HOST:PORT from a thread of its own; returns the port.

        Raises:
            SettingsError: the address cannot be listened on.
        """
        host, _, port = address.rpartition(":")
        try:
            self._endpoint = start_http_server(int(port), host, self.registry)
        except OSError as error:
            raise SettingsError(
                f"Metrics cannot be served on {address}: {error.strerror}; change metrics_listen."
            ) from error
        return self._endpoint[0].server_port

    def close(self) -> None:
        """Ends the endpoint, if there is one."""
        if self._endpoint is not None:
            server, thread = self._endpoint
            server.shutdown()
            server.server_close()
            thread.join()
            self._endpoint = None

    def _tenant(self, tenant: TenantId) -> str:
        if tenant not in self._tenants:
            if len(self._tenants) >= MAX_TENANTS:
                return OTHER_TENANTS
            self._tenants.add(tenant)
        return tenant

    def _gauge(self, name: str, text: str, labels: tuple[str, ...]) -> Gauge:
        return Gauge(PREFIX + name, text, labels, registry=self.registry)

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Counter:
        return Counter(PREFIX + name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(PREFIX + name, text, registry=self.registry, buckets=buckets)

"""However a session ends, it is counted once, under its reason."""

from __future__ import annotations

import pytest

from cloud_server.metrics import CloudMetrics
from cloud_server.settings import CloudSettings
from cloud_server.tracking import SessionTracking
from cloud_server.uplink import Uplink
from scout_core.daemon.settings import load_settings
from scout_core.errors import ChunkError, OverloadedError, PeerTimeoutError, ScoutError
from scout_core.modes import Mode, TenantId

SESSIONS = "scout_cloud_sessions_ended"


def counted(metrics: CloudMetrics) -> dict[str, float]:
    """Sessions by outcome."""
    (family,) = [family for family in metrics.registry.collect() if family.name == SESSIONS]
    return {
        sample.labels["outcome"]: sample.value
        for sample in family.samples
        if sample.name.endswith("_total")
    }


@pytest.fixture
def metrics() -> CloudMetrics:
    return CloudMetrics()


@pytest.fixture
def tracking(metrics: CloudMetrics) -> SessionTracking:
    uplink = Uplink(load_settings(CloudSettings, None, {}), metrics)
    return SessionTracking(metrics, uplink, TenantId("tenant"), Mode.SCOUT, 0.0)


@pytest.mark.parametrize("failure", [ChunkError("a"), PeerTimeoutError("b"), OverloadedError("c")])
def test_a_failed_session_is_counted_under_its_reason(
    tracking: SessionTracking, metrics: CloudMetrics, failure: ScoutError
) -> None:
    tracking.ended(failure)
    assert counted(metrics) == {failure.reason: 1.0}


def test_a_session_given_up_by_its_edge_is_counted_as_cancelled(
    tracking: SessionTracking, metrics: CloudMetrics
) -> None:
    tracking.ended(None)
    assert counted(metrics) == {"CANCELLED": 1.0}


@pytest.mark.parametrize("afterwards", [None, PeerTimeoutError("the acks of the answer")])
def test_an_answered_session_is_counted_once_as_ok(
    tracking: SessionTracking, metrics: CloudMetrics, afterwards: ScoutError | None
) -> None:
    tracking.answer_complete()
    tracking.ended(afterwards)
    assert counted(metrics) == {"OK": 1.0}

"""The transport bench on real sessions: its receiving process, the emulated link, its document."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import astuple
from pathlib import Path

import pytest

from scout_core.errors import PeerUnavailableError
from scout_core.evaluation.transport_emulated import EmulatedOptions, measure_emulated
from scout_core.evaluation.transport_loopback import LoopbackOptions, measure_loopback
from scout_core.evaluation.transport_payload import KIB, Payload
from scout_core.evaluation.transport_process import SinkProcess
from scout_core.evaluation.transport_uploads import (
    SessionPath,
    upload_by_bare_stream,
    upload_by_premade_stream,
    upload_by_session,
    upload_by_tcp,
)
from scout_core.testbed.link import LinkConfig
from scout_core.testbed.proxy import LinkEmulator

PAYLOAD = Payload.of_size(3_000_000, 128 * KIB)


async def test_a_session_a_bare_stream_and_tcp_deliver_the_same_bytes() -> None:
    async with SinkProcess() as sink:
        ports = sink.ports
        upload = await upload_by_session(SessionPath(f"127.0.0.1:{ports.session}", 0.0), PAYLOAD)
        premade_s = await upload_by_premade_stream(ports.premade, PAYLOAD, 64 * KIB)
        bare_s = await upload_by_bare_stream(ports.bare, PAYLOAD, 64 * KIB)
        tcp_s = await asyncio.to_thread(upload_by_tcp, ports.tcp, PAYLOAD, 64 * KIB)
    assert upload.payload_bytes == PAYLOAD.total_bytes
    assert 0.0 < upload.transfer_s <= upload.elapsed_s
    # Framing: a chunk of 16 KiB or more has about 25 bytes around it.
    assert PAYLOAD.total_bytes < upload.uplink_bytes < 1.01 * PAYLOAD.total_bytes
    assert premade_s > 0.0
    assert bare_s > 0.0
    assert tcp_s > 0.0


async def test_loopback_figures_are_medians_over_the_turns() -> None:
    reports: list[str] = []
    figures = await measure_loopback(LoopbackOptions(4_000_000, turns=3), reports.append)
    assert len(reports) == 3
    assert min(astuple(figures)) > 0.0


async def test_a_session_fills_the_emulated_link_with_a_bounded_backlog() -> None:
    """Looser than the bench's own bounds, for a host that is busy with other tests."""
    options = EmulatedOptions(rates_mbps=(10.0,), seconds=3.0)

    def open_link(rate_mbps: float, rtt_s: float, upstream: tuple[str, int]) -> LinkEmulator:
        return LinkEmulator(LinkConfig.constant(rate_mbps, rate_mbps, rtt_s), upstream)

    (row,) = await measure_emulated(options, open_link, lambda _: None)
    assert row.bdp_bytes == 25_000
    assert 0.85 < row.ratio < 1.01
    assert 0 < row.backlog_bytes <= row.backlog_limit_bytes


async def test_a_sink_that_is_not_running_has_no_ports() -> None:
    with pytest.raises(PeerUnavailableError, match="async with"):
        _ = SinkProcess().ports


def test_the_command_prints_one_json_document() -> None:
    sizes = ["--megabytes", "4", "--turns", "1", "--seconds", "2"]
    run = subprocess.run(
        [Path(sys.executable).parent / "scout", "bench", "transport", *sizes, "--json"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    document = json.loads(run.stdout)
    assert set(document["loopback"]) == {
        "ours_mb_s",
        "premade_grpc_mb_s",
        "bare_grpc_mb_s",
        "tcp_mb_s",
        "ratio_premade",
        "ratio_grpc",
    }
    assert [row["rate_mbps"] for row in document["emulated"]] == [1.0, 10.0, 100.0]
    for row in document["emulated"]:
        assert set(row) == {"rate_mbps", "goodput_mbps", "ratio", "backlog_bytes", "bdp_bytes"}

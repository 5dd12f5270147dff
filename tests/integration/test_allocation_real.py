"""Agents and a cloud server as processes on one emulated uplink: as virtual time predicts.

The small version of ``tests/bench/bench_allocation_real.py``: fewer agents, one round.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scout_core.evaluation.allocation_prediction import predict
from scout_core.evaluation.allocation_real import (
    RealCase,
    figures,
    record,
    run_real,
)
from scout_core.evaluation.allocation_recording import Recording
from scout_core.evaluation.allocation_replay import Conduct
from scout_core.modes import Mode
from scout_core.testbed.link import LinkConfig
from scout_core.testbed.proxy import LinkEmulator
from tests.support.daemon_process import SupervisedDaemon
from tests.support.tiny_models import save_tiny_model, tiny_engine

MBPS = 1.5
CAPACITY = 0.92 * MBPS * 125_000.0
LIED_BYTES = 16 * 1024
CASE = RealCase((1.5, 2.0, 2.5), 1, 3.0, CAPACITY, reserve=0.15, round_trip_s=0.02)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("real") / "model")


@pytest.fixture(scope="module")
def recording(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recording")
    record(tiny_engine(model), 400).save(folder)
    return folder


def test_a_recording_is_read_as_it_was_written(model: Path, recording: Path) -> None:
    assert Recording.load(recording) == record(tiny_engine(model), 400)
    sizes = {offer.mode: offer.payload_bytes for offer in Recording.load(recording).offers()}
    assert sizes[Mode.KV_BF16] > sizes[Mode.KV_INT8] > sizes[Mode.KV_INT4] > sizes[Mode.SCOUT]


async def test_processes_do_what_virtual_time_predicts_and_a_liar_gets_little_through(
    model: Path, recording: Path, tmp_path: Path
) -> None:
    flags = (
        *("--model", str(model), "--threads", "1"),
        *("--uplink-capacity-bytes-per-s", json.dumps({CASE.group: CAPACITY})),
        *("--uplink-deadline-reserve", str(CASE.reserve)),
    )
    with SupervisedDaemon("scout-cloud", tmp_path, *flags) as server:
        link = LinkConfig.constant(MBPS, 100.0, CASE.round_trip_s)
        async with LinkEmulator(link, ("127.0.0.1", server.port)) as emulator:
            host, port = emulator.address
            addresses = (f"{host}:{port}", server.address)
            honest = await run_real(CASE, recording, addresses)
            beside_a_liar = await run_real(CASE, recording, addresses, Conduct.LIES)
    seen, expected = figures(CASE, honest), predict(CASE, Recording.load(recording))
    assert seen["errors"] == []
    assert seen["compliance"] == expected["compliance"] == 1.0
    # One context of three is a third; a busy host may send one in the next smaller coding.
    for mode in Mode:
        difference = seen["modes"].get(mode.value, 0.0) - expected["modes"].get(mode.value, 0.0)
        assert abs(difference) <= 0.34
    assert 0.8 <= seen["delivered_over_granted"] <= 1.05
    liar = beside_a_liar.outcomes[2][0]
    assert liar.error == "CREDIT_EXCEEDED"
    # It declared 400 bytes and has 160 kB. How long that delays whom is for the benchmark: on a
    # busy host two runs in which nobody lies differ by a fifth.
    assert liar.payload_bytes < LIED_BYTES
    for outcomes in beside_a_liar.outcomes[:2]:
        assert outcomes[0].error == ""

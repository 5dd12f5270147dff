"""A broken edge: each misuse of a session gets its status, one log line, and harms nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
import structlog

from cloud_server.app import CloudServer
from cloud_server.host import ModelHost
from scout_core.protocol import actions
from scout_core.protocol.checksum import chunk_checksum
from scout_core.rpc.session_wire import encode_edge
from tests.support.broken_sessions import BODIES, OPENINGS, PAYLOADS, TOKENS, Case, tokens_block
from tests.support.raw_session import opening, raw_session
from tests.support.testbed import cloud_settings
from tests.support.tiny_models import save_tiny_model

pytestmark = pytest.mark.asyncio(loop_scope="module")  # one daemon for all: it must live on


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cloud(model: Path) -> AsyncIterator[CloudServer]:
    server = CloudServer(cloud_settings(model, session_resume_s=0.0))
    await server.start()
    yield server
    await server.close()


def address(cloud: CloudServer) -> str:
    return f"127.0.0.1:{cloud.port}"


def host_of(cloud: CloudServer) -> ModelHost:
    assert cloud.host is not None
    return cloud.host


async def assert_still_serves(cloud: CloudServer) -> None:
    host = host_of(cloud)
    async with raw_session(address(cloud)) as session:
        await session.send(actions.SendOpen(opening(host, TOKENS)))
        await session.payload(tokens_block(TOKENS, host.engine.vocabulary))
        await session.finish()
        tokens, done = await session.answer()
        assert done.summary.answer_tokens == len(tokens)
        assert await session.receive() is None
    assert host.sessions_in_progress == 0
    assert host.reserved_payload_bytes == 0


@pytest.mark.parametrize("case", [*OPENINGS, *PAYLOADS, *BODIES], ids=str)
async def test_broken_edge_is_told_and_forgotten(case: Case, cloud: CloudServer) -> None:
    with structlog.testing.capture_logs() as logs:
        async with raw_session(address(cloud)) as session:
            await case.misuse(session, host_of(cloud))
            code, error = await session.failure()
    assert code is case.code
    assert isinstance(error, case.error)
    assert case.says in error.message
    told = [line for line in logs if line.get("outcome") == error.reason]
    assert len(told) == 1
    assert [line for line in logs if line["log_level"] in {"warning", "error"}] == told
    await assert_still_serves(cloud)


async def test_message_above_the_cap_is_refused_before_it_is_parsed(cloud: CloudServer) -> None:
    channel = grpc.aio.insecure_channel(
        address(cloud), options=[("grpc.max_send_message_length", -1)]
    )
    async with channel:
        call = channel.stream_stream("/scout.v1.TransportService/Session")()
        data = bytes(5 << 20)
        await call.write(encode_edge(actions.SendChunk(0, data, chunk_checksum(data))))
        assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "larger than max" in (await call.details() or "")
    await assert_still_serves(cloud)

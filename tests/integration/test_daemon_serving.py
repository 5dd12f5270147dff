"""What operators and applications rely on: health, reflection, status, a graceful drain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from scout.v1 import control_pb2, control_pb2_grpc, inference_pb2, types_pb2

from scout_core.errors import DrainingError, OverloadedError
from scout_core.modes import Mode
from scout_core.protocol import actions
from scout_core.rpc.channel import SERVICES
from scout_core.rpc.client import Ask, InferenceClient
from tests.support.raw_session import opening, raw_session
from tests.support.stub_calls import failure_of, inference_stub
from tests.support.testbed import (
    CONTEXT,
    QUESTION,
    Testbed,
    answer,
    eventually,
    running_pair,
)
from tests.support.tiny_models import save_tiny_model

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SLOW_TRANSFER = Ask(QUESTION, CONTEXT, mode=Mode.KV_BF16, deadline_s=30, max_tokens=4)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
async def testbed(model: Path) -> AsyncIterator[Testbed]:
    # Credit is paced, so that a KV transfer of 130 kB is still under way when a drain begins.
    async with running_pair(model, cloud={"uplink_bytes_per_s": 100_000.0}) as pair:
        yield pair


def addresses(testbed: Testbed) -> tuple[str, str]:
    return testbed.edge_address, testbed.cloud_address


async def health(address: str, service: str = "") -> Any:
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        response = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
        return response.status


async def test_health_service_says_serving_for_the_daemon_and_each_service(
    testbed: Testbed,
) -> None:
    for address in addresses(testbed):
        for service in ("", *SERVICES):
            assert await health(address, service) == SERVING


async def test_reflection_lists_the_services(testbed: Testbed) -> None:
    for address in addresses(testbed):
        async with grpc.aio.insecure_channel(address) as channel:
            untyped: Any = channel  # the package's stubs know synchronous channels alone
            stub: Any = reflection_pb2_grpc.ServerReflectionStub(untyped)
            call = stub.ServerReflectionInfo()
            await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
            response = await asyncio.wait_for(call.read(), 5)
            call.cancel()
        names = {service.name for service in response.list_services_response.service}
        assert set(SERVICES) <= names
        assert "grpc.health.v1.Health" in names


async def test_application_in_ten_lines_gets_its_answer(testbed: Testbed) -> None:
    text, mode = "", types_pb2.MODE_UNSPECIFIED
    async with inference_stub(testbed.edge_address) as stub:
        request = inference_pb2.GenerateRequest(context_text=CONTEXT, question=QUESTION)
        async for response in stub.Generate(request, timeout=30):
            text += response.token.text
            mode = response.finished.mode or mode
    assert mode != types_pb2.MODE_UNSPECIFIED
    assert text


async def test_both_daemons_report_their_status(testbed: Testbed) -> None:
    answered = await answer(testbed.client, Ask(QUESTION, CONTEXT, mode=Mode.SCOUT, deadline_s=10))
    edge = (await testbed.client.status()).edge
    assert edge.attached
    assert edge.cloud_address == testbed.cloud_address
    assert [request.mode for request in edge.last_requests] == [types_pb2.MODE_SCOUT]
    assert edge.last_requests[0].outcome == "OK"
    assert edge.last_requests[0].payload_bytes == answered.finished.bytes.payload_bytes > 0
    assert edge.link.round_trip_s > 0
    async with grpc.aio.insecure_channel(testbed.cloud_address) as channel:
        stub: Any = control_pb2_grpc.ControlServiceStub(channel)
        await asyncio.sleep(0.25)  # two heartbeats
        status = await stub.GetStatus(control_pb2.GetStatusRequest(), timeout=5)
    cloud = status.cloud
    assert [agent.agent_id for agent in cloud.agents] == ["edge"]
    assert cloud.agents[0].last_mode == types_pb2.MODE_SCOUT
    assert cloud.contexts == 1
    assert 0 < cloud.context_bytes <= cloud.context_budget_bytes
    assert cloud.model.fingerprint == edge.models[0].fingerprint
    assert not cloud.draining


async def test_agent_service_has_no_attach(testbed: Testbed) -> None:
    async with grpc.aio.insecure_channel(testbed.edge_address) as channel:
        stub: Any = control_pb2_grpc.ControlServiceStub(channel)
        call = stub.Attach()
        assert await call.code() is grpc.StatusCode.UNIMPLEMENTED


async def begin_slow_request(testbed: Testbed) -> asyncio.Task[Any]:
    asking = asyncio.create_task(answer(testbed.client, SLOW_TRANSFER))
    host = testbed.cloud.host
    assert host is not None
    await eventually(lambda: host.sessions_in_progress == 1)
    return asking


async def test_status_tells_of_failed_requests_with_the_reason_they_ended(model: Path) -> None:
    busy = {"uplink_bytes_per_s": 20_000.0, "initial_credit_bytes": 8_192, "max_requests": 1}
    async with running_pair(model, cloud=busy) as pair:
        asking = await begin_slow_request(pair)
        with pytest.raises(OverloadedError):
            await answer(pair.client, Ask(QUESTION, CONTEXT, mode=Mode.SCOUT, retention=0.5))
        async with inference_stub(pair.edge_address) as stub:
            request = inference_pb2.GenerateRequest(
                context_text=CONTEXT, question=QUESTION, model="nonesuch"
            )
            refused = await failure_of(stub.Generate(request, timeout=5))
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        async with asyncio.timeout(5):
            # Only status tells, and it has to be asked.
            while (edge := (await pair.client.status()).edge).requests_in_flight:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    cancelled, unknown, overloaded = edge.last_requests
    assert unknown.outcome == refused.reason == "UNKNOWN_MODEL"
    assert unknown == control_pb2.RequestSummary(outcome="UNKNOWN_MODEL")
    assert (overloaded.outcome, overloaded.mode) == ("OVERLOADED", types_pb2.MODE_SCOUT)
    assert (overloaded.retention, overloaded.ttft_s) == (0.5, 0)
    assert overloaded.session_id
    assert (cancelled.outcome, cancelled.mode) == ("CANCELLED", types_pb2.MODE_KV_BF16)
    assert cancelled.deadline_s == SLOW_TRANSFER.deadline_s


async def test_draining_cloud_finishes_what_it_has_and_takes_nothing_new(
    testbed: Testbed,
) -> None:
    asking = await begin_slow_request(testbed)
    draining = asyncio.create_task(testbed.cloud.drain())
    host = testbed.cloud.host
    assert host is not None
    await eventually(lambda: host.draining)
    assert await health(testbed.cloud_address) == NOT_SERVING
    async with inference_stub(testbed.cloud_address) as stub:
        request = inference_pb2.GenerateRequest(context_text=CONTEXT, question=QUESTION)
        failure = await failure_of(stub.Generate(request, timeout=5))
    assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    assert failure.retry_after_s == 5.0
    async with raw_session(testbed.cloud_address) as session:
        await session.send(actions.SendOpen(opening(host, (5, 6, 7))))
        code, error = await session.failure()
    assert code is grpc.StatusCode.UNAVAILABLE
    assert isinstance(error, DrainingError)
    with pytest.raises(DrainingError):
        await answer(testbed.client, Ask(QUESTION, CONTEXT, mode=Mode.SCOUT, deadline_s=5))
    assert not asking.done()
    assert not draining.done()
    assert (await asking).finished.answer_tokens > 0
    await asyncio.wait_for(draining, 2)


async def test_draining_agent_finishes_what_it_has_and_takes_nothing_new(
    testbed: Testbed,
) -> None:
    asking = await begin_slow_request(testbed)
    draining = asyncio.create_task(testbed.edge.drain())
    await asyncio.sleep(0.05)
    assert await health(testbed.edge_address) == NOT_SERVING
    async with InferenceClient(testbed.edge_address) as client:
        with pytest.raises(DrainingError) as caught:
            await answer(client, Ask(QUESTION, CONTEXT, deadline_s=5))
    assert float(caught.value.details["retry_after_s"]) > 0
    assert not draining.done()
    assert (await asking).finished.answer_tokens > 0
    await asyncio.wait_for(draining, 2)


async def test_drain_that_takes_too_long_is_cut_short(model: Path) -> None:
    slow = {"uplink_bytes_per_s": 5_000.0, "initial_credit_bytes": 4_096, "drain_timeout_s": 0.3}
    async with running_pair(model, cloud=slow) as pair:
        asking = await begin_slow_request(pair)
        await asyncio.wait_for(pair.cloud.drain(), 2)
        assert not asking.done()
        asking.cancel()

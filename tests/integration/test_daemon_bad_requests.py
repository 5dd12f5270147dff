"""A broken application: each mistake gets its status, reason and advice from either daemon."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
import structlog
from google.protobuf.duration_pb2 import Duration
from scout.v1 import inference_pb2, types_pb2

from scout_core.errors import FingerprintMismatchError, ModeUnavailableError
from scout_core.modes import Mode
from scout_core.rpc.channel import RpcServer
from scout_core.rpc.client import Ask, InferenceClient
from scout_core.rpc.handlers import Context, inference_handler
from tests.support.stub_calls import failure_of, inference_stub
from tests.support.testbed import (
    CONTEXT,
    QUESTION,
    Testbed,
    answer,
    eventually,
    running_cloud,
    running_edge,
    running_pair,
)
from tests.support.tiny_models import CHAT_TEMPLATE, save_tiny_model

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
BOTH = ("edge", "cloud")


@dataclass(frozen=True)
class Case:
    """A request that is wrong in one field."""

    name: str
    reason: str
    says: str
    fields: dict[str, Any] = field(default_factory=dict)
    code: grpc.StatusCode = INVALID
    daemons: tuple[str, ...] = BOTH

    def __str__(self) -> str:
        return self.name


def sampling(**values: Any) -> dict[str, Any]:
    return {"sampling": types_pb2.Sampling(**values)}


CASES = (
    Case("unknown model", "UNKNOWN_MODEL", "leave model empty", {"model": "gpt-9"}, NOT_FOUND),
    Case("empty context", "EMPTY_INPUT", "send the text", {"context_text": " \n"}),
    Case("no context", "EMPTY_INPUT", "Set context_text", {"context_text": None}),
    Case("empty question", "EMPTY_INPUT", "ask something", {"question": "\t"}),
    Case("long question", "REQUEST_INVALID", "into the context", {"question": "x" * 20_000}),
    Case("long context", "CONTEXT_TOO_LONG", "shorten it", {"context_text": "lamp " * 2_000}),
    Case(
        "context that fills the window",
        "CONTEXT_TOO_LONG",
        "horten",
        {"context_text": "!" * 505},
    ),
    Case("retention above 1", "RETENTION_OUT_OF_RANGE", "(0, 1]", {"retention": 1.5}),
    Case("negative retention", "RETENTION_OUT_OF_RANGE", "(0, 1]", {"retention": -0.5}),
    Case("retention NaN", "RETENTION_OUT_OF_RANGE", "(0, 1]", {"retention": float("nan")}),
    Case("deadline of zero", "DEADLINE_INVALID", "600", {"deadline": Duration()}),
    Case("deadline past", "DEADLINE_INVALID", "600", {"deadline": Duration(seconds=-3)}),
    Case("absurd deadline", "DEADLINE_INVALID", "600", {"deadline": Duration(seconds=10**9)}),
    Case("unknown mode", "REQUEST_INVALID", "five modes", {"mode": 99}),
    Case("unknown execution", "REQUEST_INVALID", "EVICT or SPARSE", {"execution": 7}),
    Case("temperature", "SAMPLING_INVALID", "[0, 2]", sampling(temperature=9)),
    Case("temperature NaN", "SAMPLING_INVALID", "[0, 2]", sampling(temperature=float("nan"))),
    Case("nucleus", "SAMPLING_INVALID", "(0, 1]", sampling(top_p=1.5)),
    Case("answer too long", "SAMPLING_INVALID", "allows 512", sampling(max_tokens=9_999)),
    Case("hash cut short", "REQUEST_INVALID", "32 bytes", {"context_hash": b"abc"}),
    Case(
        "unknown hash", "UNKNOWN_CONTEXT", "upload it again", {"context_hash": bytes(32)}, NOT_FOUND
    ),
    Case(
        "KV mode without an edge",
        "MODE_UNAVAILABLE",
        "call the edge agent",
        {"mode": types_pb2.MODE_KV_INT8},
        grpc.StatusCode.FAILED_PRECONDITION,
        ("cloud",),
    ),
)
CALLS = [(case, daemon) for case in CASES for daemon in case.daemons]

pytestmark = pytest.mark.asyncio(loop_scope="module")  # one daemon for all: it must live on


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def testbed(model: Path) -> AsyncIterator[Testbed]:
    async with running_pair(model) as pair:
        yield pair


def request(**changes: Any) -> inference_pb2.GenerateRequest:
    values: dict[str, Any] = {"context_text": CONTEXT, "question": QUESTION}
    if "context_hash" in changes:
        del values["context_text"]
    merged = {key: value for key, value in (values | changes).items() if value is not None}
    return inference_pb2.GenerateRequest(**merged)


async def assert_both_serve(testbed: Testbed) -> None:
    for address in (testbed.edge_address, testbed.cloud_address):
        async with InferenceClient(address) as client:
            await answer(client, Ask(QUESTION, CONTEXT, max_tokens=2))
    assert testbed.cloud.host is not None
    # Sessions that ended release their places right after their last message.
    host = testbed.cloud.host
    await eventually(lambda: host.sessions_in_progress == 0 == host.reserved_payload_bytes)


@pytest.mark.parametrize(("case", "daemon"), CALLS, ids=str)
async def test_broken_request_is_explained_and_harms_nobody(
    case: Case, daemon: str, testbed: Testbed
) -> None:
    address = testbed.edge_address if daemon == "edge" else testbed.cloud_address
    with structlog.testing.capture_logs() as logs:
        async with inference_stub(address) as stub:
            failure = await failure_of(stub.Generate(request(**case.fields), timeout=10))
    assert (failure.code, failure.reason) == (case.code, case.reason)
    assert case.says in failure.message
    here = [line for line in logs if line.get("method", "").endswith("/Generate")]
    assert [line["outcome"] for line in here] == [case.reason]
    await assert_both_serve(testbed)


@pytest.mark.parametrize("method", ["Generate", "PutContext"])
async def test_call_without_a_deadline_is_refused(method: str, testbed: Testbed) -> None:
    requests = {
        "Generate": request(),
        "PutContext": inference_pb2.PutContextRequest(context_text=CONTEXT),
    }
    for address in (testbed.edge_address, testbed.cloud_address):
        async with inference_stub(address) as stub:
            failure = await failure_of(getattr(stub, method)(requests[method]))
        assert (failure.code, failure.reason) == (INVALID, "DEADLINE_INVALID")
        assert "pass a timeout" in failure.message


@pytest.mark.parametrize("text", ["", "lamp " * 2_000])
async def test_context_that_cannot_be_stored_is_refused(text: str, testbed: Testbed) -> None:
    upload = inference_pb2.PutContextRequest(context_text=text)
    for address in (testbed.edge_address, testbed.cloud_address):
        async with inference_stub(address) as stub:
            failure = await failure_of(stub.PutContext(upload, timeout=10))
        assert failure.code is INVALID
        assert failure.reason == ("CONTEXT_TOO_LONG" if text else "EMPTY_INPUT")


async def test_message_above_the_cap_fails_at_its_sender_or_at_the_door(testbed: Testbed) -> None:
    huge = request(context_text="x" * (5 << 20))
    async with inference_stub(testbed.edge_address, [("grpc.max_send_message_length", -1)]) as stub:
        failure = await failure_of(stub.Generate(huge, timeout=10))
    assert failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    await assert_both_serve(testbed)


async def test_malformed_tenant_is_refused(testbed: Testbed) -> None:
    async with inference_stub(testbed.cloud_address) as stub:
        call = stub.Generate(request(), timeout=10, metadata=(("scout-tenant", "a b"),))
        failure = await failure_of(call)
    assert (failure.code, failure.reason) == (INVALID, "REQUEST_INVALID")
    assert "scout-tenant" in failure.message


class EndlessServicer:
    """Answers without end, in messages that soon fill every buffer on the way."""

    def __init__(self) -> None:
        self.open_answers = 0

    async def generate(
        self, request: inference_pb2.GenerateRequest, context: Context
    ) -> AsyncIterator[inference_pb2.GenerateResponse]:
        self.open_answers += 1
        try:
            while True:
                token = inference_pb2.Token(text="x" * 16_384)
                yield inference_pb2.GenerateResponse(token=token)
        finally:
            self.open_answers -= 1

    async def put_context(
        self, request: inference_pb2.PutContextRequest, context: Context
    ) -> inference_pb2.PutContextResponse:
        return inference_pb2.PutContextResponse()


async def test_caller_that_does_not_read_its_answer_is_given_up() -> None:
    servicer = EndlessServicer()
    server = RpcServer(write_timeout_s=0.2)
    server.grpc_server.add_generic_rpc_handlers((inference_handler(servicer),))
    port = server.listen("127.0.0.1:0")
    await server.start()
    try:
        async with inference_stub(f"127.0.0.1:{port}") as stub:
            with structlog.testing.capture_logs() as logs:
                call = stub.Generate(request(), timeout=60)
                await eventually(lambda: servicer.open_answers == 1)
                await eventually(lambda: servicer.open_answers == 0, within_s=10)
                failure = await failure_of(call)
            assert (failure.code, failure.reason) == (grpc.StatusCode.ABORTED, "SLOW_CONSUMER")
            assert "read it as it comes" in failure.message
            ended = [line["outcome"] for line in logs if line["event"] == "call_finished"]
            assert ended == ["SLOW_CONSUMER"]
            # The daemon serves on, to those who read.
            responses = stub.Generate(request(), timeout=60)
            for _ in range(2_000):
                assert (await responses.read()).token.text
            responses.cancel()
            await eventually(lambda: servicer.open_answers == 0)
    finally:
        await server.stop(0)


async def test_edge_with_other_weights_offers_scout_alone(model: Path, tmp_path: Path) -> None:
    other = save_tiny_model(tmp_path, seed=1)
    async with (
        running_cloud(model) as cloud,
        running_edge(other, f"127.0.0.1:{cloud.port}") as edge,
        InferenceClient(f"127.0.0.1:{edge.port}") as client,
    ):
        with pytest.raises(ModeUnavailableError, match="cloud's model"):
            await answer(client, Ask(QUESTION, CONTEXT, mode=Mode.KV_BF16, deadline_s=10))
        got = await answer(client, Ask(QUESTION, CONTEXT, deadline_s=10, max_tokens=4))
        assert got.finished.mode == types_pb2.MODE_SCOUT


async def test_edge_with_another_tokenizer_is_told_so(model: Path, tmp_path: Path) -> None:
    other = save_tiny_model(tmp_path, template=CHAT_TEMPLATE.replace("tiny", "small"))
    async with (
        running_cloud(model) as cloud,
        running_edge(other, f"127.0.0.1:{cloud.port}") as edge,
        InferenceClient(f"127.0.0.1:{edge.port}") as client,
    ):
        with pytest.raises(FingerprintMismatchError, match="cloud's tokenizer"):
            await answer(client, Ask(QUESTION, CONTEXT, deadline_s=10))

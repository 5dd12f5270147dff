"""On a slow scheduled uplink messages are small: agents keep to it, and whatever is asked works."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs
from tokenizers import Regex, normalizers

from scout_core.errors import PeerUnavailableError
from scout_core.modes import AgentId, Mode
from scout_core.protocol import actions
from scout_core.protocol.checksum import chunk_checksum
from scout_core.rpc.client import Ask, InferenceClient
from scout_core.rpc.messages import mode_from_wire
from scout_core.rpc.options import LEAST_MESSAGE_BYTES
from tests.support.raw_session import opening, raw_session
from tests.support.testbed import CONTEXT, QUESTION, answer, running_cloud, running_pair
from tests.support.tiny_models import save_tiny_model, tiny_tokenizer

CAPACITY = {"uplink_capacity_bytes_per_s": {"default": 200_000.0}}
LONG_QUESTION = QUESTION.replace(" ", " " * 3_000)
LARGE_CONTEXT = CONTEXT.replace(" ", " " * 500)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It takes 512 tokens, and many spaces for one: texts may be long."""
    tokenizer = tiny_tokenizer()
    tokenizer.normalizer = normalizers.Replace(Regex(" +"), " ")
    return save_tiny_model(tmp_path_factory.mktemp("messages") / "llama", tokenizer=tokenizer)


def ask(question: str = QUESTION, **changes: Any) -> Ask:
    return Ask(question, context_text=CONTEXT, deadline_s=20.0, max_tokens=4, **changes)


async def test_whole_kv_and_a_long_question_cross_in_small_messages(model: Path) -> None:
    assert len(LONG_QUESTION) > LEAST_MESSAGE_BYTES
    edge = {"scout_model": "", "chunk_bytes": 512 * 1024}
    with capture_logs() as logs:
        async with running_pair(model, edge=edge) as bed:
            usual = await answer(bed.client, ask(LONG_QUESTION, mode=Mode.KV_BF16))
        async with running_pair(model, cloud=CAPACITY, edge=edge) as bed:
            asked = await answer(bed.client, ask(LONG_QUESTION, mode=Mode.KV_BF16))
    assert mode_from_wire(asked.finished.mode) is Mode.KV_BF16
    assert asked.tokens == usual.tokens
    assert asked.finished.bytes.payload_bytes > 20 * LEAST_MESSAGE_BYTES
    assert asked.finished.bytes.payload_bytes == usual.finished.bytes.payload_bytes
    noted = [entry for entry in logs if entry["event"] == "chunks_follow_the_cloud"]
    assert [entry["configured"] for entry in noted] == [512 * 1024]
    assert noted[0]["bytes"] <= LEAST_MESSAGE_BYTES


async def test_a_larger_message_is_refused_by_a_status_that_says_how_large(model: Path) -> None:
    async with (
        running_pair(model, cloud=CAPACITY, edge={"scout_model": ""}) as bed,
        raw_session(bed.cloud_address) as session,
    ):
        host = bed.cloud.host
        assert host is not None
        parameters = opening(host, tuple(range(10, 60)), agent_id=AgentId("edge"))
        await session.send(actions.SendOpen(parameters))
        await session.accepted()
        data = bytes(LEAST_MESSAGE_BYTES)
        await session.send(actions.SendChunk(0, data, chunk_checksum(data)))
        code, error = await session.failure()
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert isinstance(error, PeerUnavailableError)
    assert f"vs. {LEAST_MESSAGE_BYTES}" in error.message


async def test_contexts_of_applications_have_an_address_of_their_own(model: Path) -> None:
    assert len(LARGE_CONTEXT) > LEAST_MESSAGE_BYTES
    async with running_cloud(model, **CAPACITY, applications_listen="127.0.0.1:0") as cloud:
        async with InferenceClient(f"127.0.0.1:{cloud.applications_port}") as client:
            stored = await client.put_context(LARGE_CONTEXT)
            status = await client.status()
        async with InferenceClient(f"127.0.0.1:{cloud.port}") as client:
            refused = r"larger than max .* `applications_listen`"
            with pytest.raises(PeerUnavailableError, match=refused):
                await client.put_context(LARGE_CONTEXT)
            by_hash = Ask(QUESTION, context_hash=stored.context_hash, max_tokens=1)
            assert (await answer(client, by_hash)).tokens
    assert status.cloud.contexts == 1

"""A scout of another family than the cloud's model, through both daemons."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from scout.v1 import types_pb2

from scout_core.engine.aligned_scout import ALIGNED
from scout_core.errors import FingerprintMismatchError, ModeUnavailableError
from scout_core.modes import Execution, Mode
from scout_core.rpc.client import Ask, InferenceClient
from tests.support.testbed import QUESTION, Answered, Testbed, answer, running_pair
from tests.support.tiny_models import foreign_tokenizer, save_tiny_model, tiny_engine

TEXT = (
    "The lighthouse stands on the northern cape; naïve 日本語 🎉 beams. "
    "It was built of granite by an engineer. "
) * 4
TOKENS, CHARACTERS = (
    types_pb2.POSITION_UNIT_CLOUD_TOKENS,
    types_pb2.POSITION_UNIT_CHARACTERS,
)


def ask(retention: float, execution: Execution | None = Execution.EVICT) -> Ask:
    return Ask(
        question=QUESTION,
        context_text=TEXT,
        deadline_s=20.0,
        mode=Mode.SCOUT,
        retention=retention,
        execution=execution,
        max_tokens=6,
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("cloud"))


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scout")
    return save_tiny_model(folder, "gemma3", tokenizer=foreign_tokenizer())


@pytest.fixture
async def with_replica(model: Path, foreign: Path) -> AsyncIterator[Testbed]:
    async with running_pair(model, edge={"scout_model": str(foreign)}) as pair:
        yield pair


@pytest.fixture
async def scout_only(model: Path, foreign: Path) -> AsyncIterator[Testbed]:
    edge = {"cloud_model": "", "scout_model": str(foreign)}
    async with running_pair(model, edge=edge) as pair:
        yield pair


async def whole_answer(model: Path, text: str = TEXT) -> tuple[int, ...]:
    """What a pair of the cloud's own family answers with everything."""
    async with running_pair(model) as pair:
        got = await answer(pair.client, ask(1.0))
        return got.tokens


def check_part(got: Answered, context_tokens: int) -> None:
    assert got.finished.context_tokens == context_tokens
    assert 0 < got.finished.kept_tokens < context_tokens
    assert got.finished.bytes.indices_bytes > 0


@pytest.mark.parametrize("execution", list(Execution))
async def test_with_the_clouds_tokenizer_retention_is_exact_in_its_tokens(
    execution: Execution, with_replica: Testbed, model: Path
) -> None:
    got = await answer(with_replica.client, ask(0.25, execution))
    count = len(tiny_engine(model).prompt.context_tokens(TEXT))
    check_part(got, count)
    assert got.finished.kept_tokens == -(-count // 4)
    assert got.started.position_unit == TOKENS
    assert got.started.selector.endswith(ALIGNED)


async def test_the_tokenizer_alone_is_enough_for_that(model: Path, foreign: Path) -> None:
    edge = {"cloud_model": "", "cloud_tokenizer": str(model), "scout_model": str(foreign)}
    async with running_pair(model, edge=edge) as pair:
        got = await answer(pair.client, ask(0.25))
        count = len(tiny_engine(model).prompt.context_tokens(TEXT))
        check_part(got, count)
        assert got.finished.kept_tokens == -(-count // 4)
        assert got.started.position_unit == TOKENS


@pytest.mark.parametrize("execution", list(Execution))
async def test_without_it_characters_cross_and_the_cloud_covers_them(
    execution: Execution, scout_only: Testbed, model: Path
) -> None:
    got = await answer(scout_only.client, ask(0.25, execution))
    check_part(got, len(tiny_engine(model).prompt.context_tokens(TEXT)))
    assert got.started.position_unit == CHARACTERS
    assert got.finished.bytes.payload_bytes >= len(TEXT.encode())


async def test_the_text_crosses_once(scout_only: Testbed) -> None:
    first = await answer(scout_only.client, ask(0.25))
    again = await answer(scout_only.client, ask(0.25))
    assert again.tokens == first.tokens
    assert again.finished.bytes.payload_bytes < len(TEXT) // 4


async def test_everything_kept_is_the_clouds_own_full_context(
    scout_only: Testbed, model: Path
) -> None:
    got = await answer(scout_only.client, ask(1.0))
    assert got.tokens == await whole_answer(model)
    assert got.finished.kept_tokens == got.finished.context_tokens


async def test_the_policy_chooses_scout_mode_and_kv_is_refused(scout_only: Testbed) -> None:
    got = await answer(scout_only.client, Ask(QUESTION, TEXT, deadline_s=20.0, max_tokens=4))
    assert got.finished.mode == types_pb2.MODE_SCOUT
    with pytest.raises(ModeUnavailableError, match="cloud's model"):
        await answer(scout_only.client, Ask(QUESTION, TEXT, mode=Mode.KV_INT8, deadline_s=20.0))


async def test_a_scheduled_uplink_serves_characters_too(model: Path, foreign: Path) -> None:
    edge = {"cloud_model": "", "scout_model": str(foreign)}
    cloud = {"uplink_capacity_bytes_per_s": {"default": 1_000_000.0}}
    async with running_pair(model, edge=edge, cloud=cloud) as pair:
        got = await answer(pair.client, Ask(QUESTION, TEXT, deadline_s=20.0, max_tokens=4))
        assert got.started.position_unit == CHARACTERS
        assert got.finished.mode == types_pb2.MODE_SCOUT


async def test_a_cloud_that_forgot_the_text_gets_it_again(model: Path, foreign: Path) -> None:
    edge = {"cloud_model": "", "scout_model": str(foreign)}
    async with running_pair(model, edge=edge, cloud={"context_ttl_s": 0.2}) as pair:
        first = await answer(pair.client, ask(0.5))
        await asyncio.sleep(0.4)
        again = await answer(pair.client, ask(0.5))
        assert again.tokens == first.tokens


async def test_a_configured_tokenizer_that_is_not_the_clouds_is_refused(
    model: Path, foreign: Path
) -> None:
    edge = {"cloud_model": "", "cloud_tokenizer": str(foreign), "scout_model": str(foreign)}
    async with (
        running_pair(model, edge=edge) as pair,
        InferenceClient(pair.edge_address) as client,
    ):
        with pytest.raises(FingerprintMismatchError, match="cloud_tokenizer"):
            await answer(client, ask(0.5))

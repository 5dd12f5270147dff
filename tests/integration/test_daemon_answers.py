"""Both daemons and a link between them: every mode answers, and answers right."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from scout_core.engine import Engine
from scout_core.errors import UnknownContextError
from scout_core.modes import Execution, Mode
from scout_core.rpc.client import Ask, InferenceClient
from scout_core.sampling import SamplingOptions
from tests.support.testbed import (
    CONTEXT,
    QUESTION,
    Testbed,
    answer,
    running_edge,
    running_pair,
)
from tests.support.tiny_models import FAMILIES, save_tiny_model, tiny_engine

ANSWER_TOKENS = 8


def ask(mode: Mode | None = None, **changes: object) -> Ask:
    values: dict[str, object] = {
        "question": QUESTION,
        "context_text": CONTEXT,
        "deadline_s": 10.0,
        "mode": mode,
        "max_tokens": ANSWER_TOKENS,
    }
    return Ask(**(values | changes))  # pyright: ignore[reportArgumentType] - by name, as asked


def local_answer(engine: Engine, context: str = CONTEXT, **sampling: object) -> tuple[int, ...]:
    """What the model answers with the whole context, no daemon in between."""
    prompt = engine.prompt
    cache = engine.new_cache()
    engine.prefill(cache, (*prompt.head_tokens, *prompt.context_tokens(context)))
    options = SamplingOptions(**({"max_tokens": ANSWER_TOKENS} | sampling))  # pyright: ignore[reportArgumentType]
    decoder = engine.decoder(cache, prompt.tail_tokens(QUESTION), options)
    tokens: list[int] = []
    while (token := decoder.step()) is not None:
        tokens.append(token.token_id)
    return tuple(tokens)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
async def testbed(model: Path) -> AsyncIterator[Testbed]:
    async with running_pair(model) as pair:
        yield pair


@pytest.mark.parametrize("family", FAMILIES)
async def test_every_mode_answers_with_every_family(family: str, tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path, family)
    full = local_answer(tiny_engine(folder))
    async with running_pair(folder) as pair:
        for mode in Mode:
            retention = 0.5 if mode.selects else None
            got = await answer(pair.client, ask(mode, retention=retention))
            assert got.started.forced
            assert got.finished.bytes.payload_bytes > 0
            assert got.finished.bytes.uplink_bytes > got.finished.bytes.payload_bytes
            assert got.finished.degradation == ""
            assert len(got.tokens) <= ANSWER_TOKENS
        whole = await answer(pair.client, ask(Mode.SCOUT, retention=1.0))
    assert whole.tokens == full


@pytest.mark.parametrize("execution", list(Execution))
async def test_scout_that_keeps_everything_gives_the_full_context_answer(
    execution: Execution, testbed: Testbed, model: Path
) -> None:
    got = await answer(testbed.client, ask(Mode.SCOUT, retention=1.0, execution=execution))
    assert got.tokens == local_answer(tiny_engine(model))


async def test_all_modes_report_what_crossed_the_link(testbed: Testbed) -> None:
    payloads: dict[Mode, int] = {}
    for mode in Mode:
        got = await answer(testbed.client, ask(mode, retention=0.5 if mode.selects else None))
        counted = got.finished.bytes
        payloads[mode] = counted.payload_bytes
        assert counted.downlink_bytes > 0
        assert (counted.indices_bytes > 0) is mode.selects
        if mode is Mode.KV_BF16:
            # The head is sent as well; block headers are the rest.
            assert counted.payload_bytes >= counted.kv_bf16_bytes
    assert payloads[Mode.KV_BF16] > payloads[Mode.KV_INT8] > payloads[Mode.KV_INT4]
    assert payloads[Mode.KV_INT4] > payloads[Mode.SCOUT]


async def test_eight_concurrent_requests_answer_as_they_do_alone(testbed: Testbed) -> None:
    modes = [*Mode, Mode.SCOUT, Mode.KV_INT8, Mode.KV_BF16]
    asks = [
        ask(
            mode,
            context_text=f"{CONTEXT} The keeper of lamp {index} is number {index}.",
            retention=0.5 if mode.selects else None,
            temperature=1.5,
            seed=3,
        )
        for index, mode in enumerate(modes)
    ]
    together = await asyncio.gather(*(answer(testbed.client, each) for each in asks))
    alone = [(await answer(testbed.client, each)).tokens for each in asks]
    assert [got.tokens for got in together] == alone
    assert len(set(alone)) > len(alone) // 2, "the contexts must make a difference"


async def test_sampled_answer_depends_on_its_seed_alone(testbed: Testbed, model: Path) -> None:
    warm = ask(Mode.SCOUT, retention=1.0, temperature=1.5, seed=7)
    first = await answer(testbed.client, warm)
    again = await answer(testbed.client, warm)
    other = await answer(testbed.client, ask(Mode.SCOUT, retention=1.0, temperature=1.5, seed=8))
    assert first.tokens == again.tokens
    assert first.tokens != other.tokens
    assert first.tokens == local_answer(tiny_engine(model), temperature=1.5, seed=7)


async def test_second_question_costs_tens_of_bytes(testbed: Testbed) -> None:
    await answer(testbed.client, ask(Mode.SCOUT, retention=0.5, execution=Execution.EVICT))
    again = await answer(testbed.client, ask(Mode.SCOUT, retention=0.5, execution=Execution.EVICT))
    assert again.finished.bytes.payload_bytes < 60


async def test_edge_sends_the_tokens_when_the_cloud_has_forgotten_the_context(
    testbed: Testbed,
) -> None:
    first = await answer(testbed.client, ask(Mode.SCOUT, retention=1.0))
    assert testbed.cloud.host is not None
    testbed.cloud.host.contexts.expire(float("inf"))
    assert len(testbed.cloud.host.contexts) == 0
    again = await answer(testbed.client, ask(Mode.SCOUT, retention=1.0))
    assert again.tokens == first.tokens
    assert len(testbed.cloud.host.contexts) == 1


async def test_uploaded_context_is_asked_about_by_its_hash(testbed: Testbed) -> None:
    uploaded = await testbed.client.put_context(CONTEXT)
    by_hash = ask(Mode.KV_BF16, context_text=None, context_hash=uploaded.context_hash)
    got = await answer(testbed.client, by_hash)
    assert got.started.context_tokens == uploaded.context_tokens
    assert got.finished.timing.edge_prefill_s == 0.0
    assert got.tokens == (await answer(testbed.client, ask(Mode.KV_BF16))).tokens


async def test_tenants_do_not_see_each_others_contexts(testbed: Testbed, model: Path) -> None:
    """The context's text travels once per tenant, and a hash of another tenant is unknown."""
    await answer(testbed.client, ask(Mode.SCOUT, retention=1.0))
    async with (
        running_edge(model, testbed.cloud_address, agent_id="other", tenant="other") as other,
        InferenceClient(f"127.0.0.1:{other.port}") as client,
    ):
        got = await answer(client, ask(Mode.SCOUT, retention=1.0))
    assert got.finished.bytes.payload_bytes > 100
    assert testbed.cloud.host is not None
    assert len(testbed.cloud.host.contexts) == 2
    uploaded = await testbed.client.put_context(CONTEXT)
    async with InferenceClient(testbed.cloud_address) as direct:
        # The edge's tenant is "default", as is that of a direct caller without the header.
        known = ask(context_text=None, context_hash=uploaded.context_hash)
        assert (await answer(direct, known)).tokens
        with pytest.raises(UnknownContextError):
            await answer(direct, ask(context_text=None, context_hash=bytes(32)))


async def test_cloud_answers_direct_callers_with_the_same_tokens(
    testbed: Testbed, model: Path
) -> None:
    async with InferenceClient(testbed.cloud_address) as client:
        got = await answer(client, ask())
    assert got.tokens == local_answer(tiny_engine(model))
    assert got.started.mode == got.finished.mode

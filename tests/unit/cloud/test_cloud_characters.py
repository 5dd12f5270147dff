"""Text and ranges become the cloud's own tokens; what contradicts the session is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_server.admission import check_open, payload_limit_bytes
from cloud_server.assembly import PayloadAssembler
from cloud_server.host import ModelHost
from cloud_server.settings import CloudSettings
from scout_core.codec.positions import encode_positions
from scout_core.codec.spans import MAX_CHARACTERS, Span, encode_spans
from scout_core.codec.tokens import encode_tokens
from scout_core.daemon.contexts import ContextStore, text_hash
from scout_core.daemon.settings import load_settings
from scout_core.daemon.worker import TorchWorker
from scout_core.engine import Engine
from scout_core.errors import (
    ContextTooLongError,
    DigestMismatchError,
    EmptyInputError,
    ModeUnavailableError,
    PayloadError,
    PositionsError,
    ScoutError,
    UnknownContextError,
)
from scout_core.modes import Execution, Mode, PositionUnit, TenantId
from scout_core.protocol.blocks import Block, BlockKind, BlockParser, encode_block
from scout_core.protocol.opening import Offer, OpenParameters
from tests.support.raw_session import opening
from tests.support.tiny_models import save_tiny_model, tiny_engine

TEXT = "The lighthouse stands on the northern cape; naïve 日本語 🎉 beams. " * 3
KEPT: tuple[Span, ...] = ((4, 14), (50, 60))
TENANT = TenantId("tenant")
SETTINGS = load_settings(CloudSettings, None, {})


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return tiny_engine(save_tiny_model(tmp_path_factory.mktemp("model")))


@pytest.fixture
def host(engine: Engine) -> ModelHost:
    return ModelHost(engine, TorchWorker(), ContextStore(1 << 24, 60.0), 8, 1 << 24)


def opened(host: ModelHost, text: str = TEXT, **changes: Any) -> OpenParameters:
    values: dict[str, Any] = {
        "context_hash": text_hash(text),
        "context_tokens": 40,
        "context_characters": len(text),
        "position_unit": PositionUnit.CHARACTERS,
    }
    return opening(host, (1,), **(values | changes))


def assembler(host: ModelHost, text: str = TEXT, **changes: Any) -> PayloadAssembler:
    return PayloadAssembler(host, opened(host, text, **changes), TENANT)


def block(kind: BlockKind, count: int, body: bytes, start: int = 0) -> Block:
    (parsed,) = BlockParser().feed(encode_block(kind, 0, start, count, body))
    return parsed


def text_block(text: str = TEXT) -> Block:
    return block(BlockKind.TEXT, len(text), text.encode())


def spans_block(spans: tuple[Span, ...] = KEPT, text: str = TEXT) -> Block:
    return block(BlockKind.SPANS, len(spans), encode_spans(spans, len(text)))


def covered(engine: Engine) -> list[int]:
    """Positions of the prefix that hold a kept character, head included, by brute force."""
    head = len(engine.prompt.head_tokens)
    wanted = {character for begin, end in KEPT for character in range(begin, end)}
    inside = [
        head + index
        for index, span in enumerate(engine.prompt.context_spans(TEXT))
        if wanted & set(range(*span))
    ]
    return [*range(head), *inside]


@pytest.mark.parametrize("execution", list(Execution))
async def test_ranges_keep_the_tokens_that_hold_their_characters(
    execution: Execution, host: ModelHost, engine: Engine
) -> None:
    receiving = assembler(host, retention=0.5, execution=execution)
    await receiving.add(spans_block())
    await receiving.add(text_block())
    prepared = await receiving.prepare()
    assert prepared.execution is execution
    assert prepared.cache.positions.tolist() == covered(engine)
    count = len(engine.prompt.context_tokens(TEXT))
    assert receiving.parameters.context_tokens == count
    assert prepared.cache.next_position == len(engine.prompt.head_tokens) + count


async def test_text_alone_is_the_whole_context(host: ModelHost, engine: Engine) -> None:
    receiving = assembler(host)
    await receiving.add(text_block())
    prepared = await receiving.prepare()
    cache = engine.new_cache()
    engine.prefill(cache, (*engine.prompt.head_tokens, *engine.prompt.context_tokens(TEXT)))
    assert torch.equal(prepared.cache.tensor(0, cache.length), cache.tensor(0, cache.length))


async def test_a_stored_text_needs_no_second_sending(host: ModelHost, engine: Engine) -> None:
    first = assembler(host)
    await first.add(text_block())
    await first.prepare()
    again = assembler(host, retention=0.5)
    await again.add(spans_block())
    assert (await again.prepare()).cache.positions.tolist() == covered(engine)


async def test_an_unknown_text_is_asked_for(host: ModelHost) -> None:
    receiving = assembler(host, retention=0.5)
    await receiving.add(spans_block())
    with pytest.raises(UnknownContextError):
        await receiving.prepare()


@pytest.mark.parametrize(
    ("improper", "error"),
    [
        (text_block(TEXT[:-1]), PayloadError),
        (text_block(TEXT[:-1] + "!"), DigestMismatchError),
        (block(BlockKind.TEXT, len(TEXT), b"\xff" * len(TEXT)), PayloadError),
        (block(BlockKind.TEXT, len(TEXT), TEXT.encode(), start=1), PayloadError),
        (block(BlockKind.SPANS, 2, b"\x00\x00"), PositionsError),
        (block(BlockKind.SPANS, 1, b"\x00\xff\x7f"), PositionsError),
        (block(BlockKind.SPANS, 9_000, b"\x00\x00"), PositionsError),
        (block(BlockKind.INDICES, 2, encode_positions([0, 1], 40)), PayloadError),
        (block(BlockKind.TOKENS, 2, encode_tokens((5, 6), 320)), PayloadError),
        (block(BlockKind.KV, 2, b"kv"), PayloadError),
    ],
)
async def test_improper_blocks_are_refused(
    improper: Block, error: type[ScoutError], host: ModelHost
) -> None:
    with pytest.raises(error) as caught:
        await assembler(host).add(improper)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize("twice", [text_block(), spans_block()])
async def test_a_second_block_of_a_kind_is_refused(twice: Block, host: ModelHost) -> None:
    receiving = assembler(host)
    await receiving.add(twice)
    with pytest.raises(PayloadError, match="second"):
        await receiving.add(twice)


async def test_characters_do_not_enter_a_session_that_counts_tokens(host: ModelHost) -> None:
    receiving = PayloadAssembler(host, opening(host, (5, 6, 7)), TENANT)
    for foreign in (text_block(), spans_block()):
        with pytest.raises(PayloadError, match="counts cloud_tokens"):
            await receiving.add(foreign)


@given(st.binary(min_size=1, max_size=24), st.integers(1, 12))
@settings(max_examples=60, deadline=None)
async def test_foreign_ranges_are_refused_or_select_tokens(
    engine: Engine, body: bytes, count: int
) -> None:
    host = ModelHost(engine, TorchWorker(), ContextStore(1 << 24, 60.0), 8, 1 << 24)
    receiving = assembler(host, retention=0.5, execution=Execution.SPARSE)
    await receiving.add(text_block())
    try:
        await receiving.add(block(BlockKind.SPANS, count, body))
    except PositionsError:
        return
    prepared = await receiving.prepare()
    assert len(engine.prompt.head_tokens) < prepared.cache.length


async def test_texts_without_words_and_with_too_many_are_refused(
    host: ModelHost, engine: Engine
) -> None:
    for text, error in ((" \n ", EmptyInputError), ("word " * 600, ContextTooLongError)):
        receiving = assembler(host, text)
        await receiving.add(text_block(text))
        with pytest.raises(error):
            await receiving.prepare()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"mode": Mode.KV_INT8}, ModeUnavailableError),
        ({"offers": (Offer(Mode.KV_SELECT, 0.5, 9, 1.0, 0.0),)}, ModeUnavailableError),
        ({"context_characters": 0}, ContextTooLongError),
        ({"context_characters": MAX_CHARACTERS + 1}, ContextTooLongError),
        ({"context_tokens": 4 * len(TEXT) + 1}, PayloadError),
    ],
)
def test_an_impossible_open_is_refused(
    changes: dict[str, Any], error: type[ScoutError], host: ModelHost
) -> None:
    check_open(opened(host), host, SETTINGS)
    with pytest.raises(error):
        check_open(opened(host, **changes), host, SETTINGS)


def test_the_payload_limit_holds_the_widest_text_and_the_most_ranges(host: ModelHost) -> None:
    widest = "𓀀" * 999
    every_other = tuple((begin, begin + 1) for begin in range(0, 999, 2))
    largest = len(widest.encode()) + len(encode_spans(every_other, 999))
    assert largest <= payload_limit_bytes(opened(host, widest), host)

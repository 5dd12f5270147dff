"""What a broken edge may do to a session, and what each misuse must lead to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import torch

from cloud_server.host import ModelHost
from scout_core.codec.positions import encode_positions
from scout_core.codec.raw_bf16 import RawBf16Codec
from scout_core.codec.tokens import encode_tokens
from scout_core.daemon.contexts import text_hash
from scout_core.errors import (
    ChunkError,
    CodecError,
    ContextTooLongError,
    CreditExceededError,
    DeadlineError,
    DigestMismatchError,
    EmptyInputError,
    FingerprintMismatchError,
    PayloadError,
    PositionsError,
    RemoteProtocolError,
    RetentionError,
    SamplingError,
    ScoutError,
    UnknownContextError,
)
from scout_core.modes import AgentId, ContextHash, Mode, ModelFingerprint, PositionUnit
from scout_core.protocol import actions
from scout_core.protocol.blocks import BlockKind, encode_block
from scout_core.protocol.checksum import chunk_checksum
from scout_core.sampling import SamplingOptions
from tests.support.raw_session import RawSession, opening

TOKENS = tuple(range(10, 50))
RAW = RawBf16Codec()
KV = int(RAW.codec_id)
INVALID = grpc.StatusCode.INVALID_ARGUMENT
Misuse = Callable[[RawSession, ModelHost], Awaitable[None]]


def tokens_block(tokens: tuple[int, ...], vocabulary: int) -> bytes:
    body = encode_tokens(tokens, vocabulary)
    return encode_block(BlockKind.TOKENS, 0, 0, len(tokens), body)


@dataclass(frozen=True)
class Case:
    """A misuse and what it must lead to."""

    name: str
    misuse: Misuse
    error: type[ScoutError]
    says: str
    code: grpc.StatusCode = INVALID

    def __str__(self) -> str:
        return self.name


def opens(**changes: Any) -> Misuse:
    async def misuse(session: RawSession, host: ModelHost) -> None:
        await session.send(actions.SendOpen(opening(host, TOKENS, **changes)))

    return misuse


def sends(*blocks: bytes, **changes: Any) -> Misuse:
    """Opens properly, then sends these blocks and finishes."""

    async def misuse(session: RawSession, host: ModelHost) -> None:
        await session.send(actions.SendOpen(opening(host, TOKENS, **changes)))
        await session.accepted()
        for block in blocks:
            await session.payload(block)
        await session.finish()

    return misuse


def indices(body: bytes, count: int) -> bytes:
    return encode_block(BlockKind.INDICES, 0, 0, count, body)


def kv_body(positions: int, value: float = 1.0) -> bytes:
    """Raw bf16 KV of the tiny model: 3 layers, 2 heads of 16."""
    return RAW.encode(torch.full((3, 2, 2, positions, 16), value, dtype=torch.bfloat16))


def kv_with(value: float) -> bytes:
    """A raw body in which one number is replaced, as a broken encoder would send it."""
    bits = torch.tensor([value], dtype=torch.bfloat16).view(torch.int16).numpy().tobytes()
    return kv_body(4)[:-2] + bits


def selection(*positions: int) -> bytes:
    return encode_positions(np.array(positions, dtype=np.int64), len(TOKENS))


async def send_unknown_bytes(session: RawSession, host: ModelHost) -> None:
    await session.send_bytes(b"\xff\xff\xff")


async def send_chunk_first(session: RawSession, host: ModelHost) -> None:
    await session.send(actions.SendChunk(0, b"x", chunk_checksum(b"x")))


async def open_twice(session: RawSession, host: ModelHost) -> None:
    await opens()(session, host)
    await session.accepted()
    await opens()(session, host)


async def finish_twice(session: RawSession, host: ModelHost) -> None:
    await session.send(actions.SendOpen(opening(host, TOKENS)))
    await session.payload(tokens_block(TOKENS, host.engine.vocabulary))
    await session.finish()
    await session.finish()


async def send_wrong_checksum(session: RawSession, host: ModelHost) -> None:
    await opens()(session, host)
    await session.send(actions.SendChunk(0, b"abc", chunk_checksum(b"abd")))


async def send_beyond_credit(session: RawSession, host: ModelHost) -> None:
    await opens(mode=Mode.KV_BF16)(session, host)
    accepted = await session.accepted()
    await session.send(
        actions.SendChunk(accepted.credit_bytes, b"x", chunk_checksum(b"x")),
    )


async def announce_wrong_total(session: RawSession, host: ModelHost) -> None:
    await opens()(session, host)
    await session.payload(tokens_block(TOKENS, host.engine.vocabulary))
    await session.send(actions.SendFinish(3, b"d" * 16))


async def end_inside_a_block(session: RawSession, host: ModelHost) -> None:
    await opens()(session, host)
    await session.payload(tokens_block(TOKENS, host.engine.vocabulary)[:-1])
    await session.finish()


async def send_other_tokens(session: RawSession, host: ModelHost) -> None:
    await opens()(session, host)
    await session.payload(tokens_block(TOKENS[::-1], host.engine.vocabulary))
    await session.finish()


def text_block(text: str) -> bytes:
    return encode_block(BlockKind.TEXT, 0, 0, len(text), text.encode())


SELECTED = {"retention": 0.5, "mode": Mode.SCOUT}
TEXT = "The lamp was converted to electricity."
IN_CHARACTERS: dict[str, Any] = {
    **SELECTED,
    "position_unit": PositionUnit.CHARACTERS,
    "context_hash": text_hash(TEXT),
    "context_characters": len(TEXT),
}
OPENINGS = (
    Case(
        "another model",
        opens(model_fingerprint=ModelFingerprint("0" * 64)),
        FingerprintMismatchError,
        "attach again",
        grpc.StatusCode.FAILED_PRECONDITION,
    ),
    Case("empty question", opens(question="  "), EmptyInputError, "ask something"),
    Case("empty context", opens(context_tokens=0), EmptyInputError, "context is empty"),
    Case("long context", opens(context_tokens=9_000), ContextTooLongError, "Shorten it"),
    Case("retention of 0", opens(retention=0.0), RetentionError, "(0, 1]"),
    Case("retention above 1", opens(retention=1.5), RetentionError, "(0, 1]"),
    Case("retention is not a number", opens(retention=float("nan")), RetentionError, "(0, 1]"),
    Case("absurd deadline", opens(deadline_s=1e6), DeadlineError, "within 600 s"),
    Case("deadline long past", opens(deadline_s=-1e4), DeadlineError, "within 600 s"),
    Case(
        "too many answer tokens",
        opens(sampling=SamplingOptions(max_tokens=100_000)),
        SamplingError,
        "allows",
    ),
    Case("agent without a name", opens(agent_id=AgentId("")), RemoteProtocolError, "agent_id"),
    Case("short hash", opens(context_hash=ContextHash(b"h")), RemoteProtocolError, "32 bytes"),
)
PAYLOADS = (
    Case("bytes that are no message", send_unknown_bytes, RemoteProtocolError, "same version"),
    Case("chunk before open", send_chunk_first, RemoteProtocolError, "must be `open`"),
    Case("second open", open_twice, RemoteProtocolError, "not possible"),
    Case("second finish", finish_twice, RemoteProtocolError, "second finish"),
    Case("wrong checksum", send_wrong_checksum, ChunkError, "send it again"),
    Case(
        "beyond its credit",
        send_beyond_credit,
        CreditExceededError,
        "send only what was granted",
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    ),
    Case(
        "wrong total",
        announce_wrong_total,
        DigestMismatchError,
        "send the payload again",
        grpc.StatusCode.DATA_LOSS,
    ),
    Case("half a block", end_inside_a_block, PayloadError, "whole blocks"),
    Case(
        "tokens of another context",
        send_other_tokens,
        DigestMismatchError,
        "context hash",
        grpc.StatusCode.DATA_LOSS,
    ),
    Case(
        "nothing, and the context is unknown",
        sends(context_hash=ContextHash(b"?" * 32)),
        UnknownContextError,
        "upload it again",
        grpc.StatusCode.NOT_FOUND,
    ),
)
BODIES = (
    Case(
        "index out of range",
        sends(indices(encode_positions(np.array([5, 63]), 64), 2), **SELECTED),
        PositionsError,
        "",
    ),
    Case(
        "more indices than positions",
        sends(indices(selection(1, 2), 41), **SELECTED),
        PositionsError,
        "",
    ),
    Case("indices of garbage", sends(indices(b"\xff" * 9, 7), **SELECTED), PositionsError, ""),
    Case(
        "two selections",
        sends(indices(selection(1, 2), 2), indices(selection(3, 4), 2), **SELECTED),
        PayloadError,
        "one selection",
    ),
    Case(
        "KV of a wrong shape",
        sends(encode_block(BlockKind.KV, KV, 0, 4, kv_body(4)[:-2]), mode=Mode.KV_BF16),
        CodecError,
        "",
    ),
    Case(
        "KV in an unknown format",
        sends(encode_block(BlockKind.KV, 99, 0, 4, kv_body(4)), mode=Mode.KV_BF16),
        CodecError,
        "Unknown codec id 99",
    ),
    Case(
        "KV with NaN",
        sends(encode_block(BlockKind.KV, KV, 0, 4, kv_with(float("nan"))), mode=Mode.KV_BF16),
        CodecError,
        "NaN or infinity",
    ),
    Case(
        "infinite KV",
        sends(encode_block(BlockKind.KV, KV, 0, 4, kv_with(float("inf"))), mode=Mode.KV_BF16),
        CodecError,
        "NaN or infinity",
    ),
    Case(
        "KV that does not begin where it must",
        sends(encode_block(BlockKind.KV, KV, 4, 4, kv_body(4)), mode=Mode.KV_BF16),
        PayloadError,
        "",
    ),
    Case(
        "KV beyond the context",
        sends(encode_block(BlockKind.KV, KV, 400, 4, kv_body(4)), mode=Mode.KV_BF16),
        PayloadError,
        "beyond the prefix",
    ),
    Case(
        "selected KV without its selection",
        sends(
            encode_block(BlockKind.KV_SELECTED, KV, 0, 4, kv_body(4)),
            mode=Mode.KV_SELECT,
            retention=0.5,
        ),
        PayloadError,
        "before its INDICES",
    ),
    Case(
        "ranges beyond the text",
        sends(encode_block(BlockKind.SPANS, 0, 0, 1, b"\x00\x7f"), **IN_CHARACTERS),
        PositionsError,
        "the text has",
    ),
    Case(
        "ranges of garbage",
        sends(encode_block(BlockKind.SPANS, 0, 0, 3, b"\xff" * 9), **IN_CHARACTERS),
        PositionsError,
        "",
    ),
    Case(
        "indices among characters",
        sends(indices(selection(1, 2), 2), **IN_CHARACTERS),
        PayloadError,
        "counts characters",
    ),
    Case("text among tokens", sends(text_block(TEXT), **SELECTED), PayloadError, "cloud_tokens"),
    Case(
        "another text of that length",
        sends(text_block(TEXT[::-1]), **IN_CHARACTERS),
        DigestMismatchError,
        "context hash",
        grpc.StatusCode.DATA_LOSS,
    ),
    Case(
        "text that is no UTF-8",
        sends(encode_block(BlockKind.TEXT, 0, 0, len(TEXT), b"\xff" * len(TEXT)), **IN_CHARACTERS),
        PayloadError,
        "not UTF-8",
    ),
    Case(
        "part of the selected KV",
        sends(
            indices(selection(1, 2), 2),
            encode_block(BlockKind.KV_SELECTED, KV, 0, 4, kv_body(4)),
            mode=Mode.KV_SELECT,
            retention=0.5,
        ),
        PayloadError,
        "before all selected KV",
    ),
    Case("a kind of block unknown here", sends(b"\x09" * 8), PayloadError, "differ in version"),
    Case(
        "token ids beyond the vocabulary",
        sends(encode_block(BlockKind.TOKENS, 0, 0, 40, b"\xff" * 45)),
        PayloadError,
        "",
    ),
)

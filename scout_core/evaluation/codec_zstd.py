"""Peers of the codec study that only compress: zstd on bf16, plain and split. Both are bit-exact.

Owns their payloads. Needs the package ``zstandard`` (extra ``evaluation``); without it there are
none, and ``scout bench codec`` says so. Knows no model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Final

import numpy as np
import torch

from scout_core.evaluation.codec_coded import Code, Coded, Contender, ExactCache

ZSTD_LEVEL: Final = 9
"""Far past zstd's default of 3: more than a sender on a fast link would spend."""


def has_zstd() -> bool:
    """Whether the package is there."""
    return find_spec("zstandard") is not None


def zstd_peers() -> Iterator[Contender]:
    """zstd on the cache's bytes, and on its exponents followed by its signs and mantissas."""
    if has_zstd():
        yield Contender("zstd_bf16", "zstd_bf16", "peer", _compressed(_whole, _joined_whole))
        yield Contender("zstd_split_bf16", "zstd_split", "peer", _compressed(_split, _joined_split))


def _compressed(taken: Callable[[bytes], bytes], joined: Callable[[bytes], bytes]) -> Code:
    import zstandard  # noqa: PLC0415 - an optional extra

    def code(cache: ExactCache) -> Coded:
        kv = cache.kv
        raw = kv.contiguous().view(torch.int16).numpy().tobytes()
        payload = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(taken(raw))
        read = bytearray(joined(zstandard.ZstdDecompressor().decompress(payload)))
        decoded = torch.frombuffer(read, dtype=torch.int16).view(torch.bfloat16)
        return Coded(decoded.reshape(kv.shape), len(payload))

    return code


def _whole(raw: bytes) -> bytes:
    return raw


def _joined_whole(stored: bytes) -> bytes:
    return stored


def _split(raw: bytes) -> bytes:
    words = np.frombuffer(raw, dtype="<u2")
    exponents = (words >> 7 & 0xFF).astype(np.uint8)
    fractions = (words >> 8 & 0x80 | words & 0x7F).astype(np.uint8)
    return exponents.tobytes() + fractions.tobytes()


def _joined_split(stored: bytes) -> bytes:
    exponents, fractions = np.frombuffer(stored, dtype=np.uint8).reshape(2, -1).astype("<u2")
    return (exponents << 7 | (fractions & 0x80) << 8 | fractions & 0x7F).tobytes()

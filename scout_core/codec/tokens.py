"""Token ids as bytes: radix packing, log2(vocabulary) bits a token.

Owns the byte format of token blocks; knows no tokenizer. Ids are digits in base ``vocabulary``;
each group of ``GROUP_TOKENS`` ids becomes one little-endian integer in as few whole bytes as hold
it. 170 tokens of a 151,936-word vocabulary take 366 bytes. Count and vocabulary travel outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scout_core.errors import CodecError

GROUP_TOKENS: Final = 256
"""Ids per integer: the rounding to whole bytes costs under 0.02 bit a token."""
MAX_VOCABULARY: Final = 1 << 24
MAX_TOKENS: Final = 1 << 20


def encode_tokens(tokens: Sequence[int] | NDArray[np.int64], vocabulary: int) -> bytes:
    """Packs token ids, each in ``[0, vocabulary)``.

    Raises:
        CodecError: an id out of range, or too many of them.
    """
    array = np.asarray(tokens)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise CodecError("Token ids must be a one-dimensional sequence of integers.")
    ids: list[int] = array.tolist()
    size = token_bytes(vocabulary, len(ids))
    if ids and not (min(ids) >= 0 and max(ids) < vocabulary):
        raise CodecError(f"Token ids must lie in [0, {vocabulary}); check the tokenizer.")
    packed = bytearray()
    for start in range(0, len(ids), GROUP_TOKENS):
        group = ids[start : start + GROUP_TOKENS]
        packed += _join(group, vocabulary).to_bytes(_group_bytes(vocabulary, len(group)), "little")
    if len(packed) != size:
        raise AssertionError("token_bytes and encode_tokens disagree")
    return bytes(packed)


def decode_tokens(payload: bytes, vocabulary: int, count: int) -> NDArray[np.int64]:
    """Inverse of ``encode_tokens``; returns ids of shape ``[count]``.

    Raises:
        CodecError: wrong length, or bytes that are no packing of such ids.
    """
    size = token_bytes(vocabulary, count)
    if len(payload) != size:
        raise CodecError(f"{count} token ids take {size} bytes, got {len(payload)}.")
    ids: list[int] = []
    offset = 0
    for start in range(0, count, GROUP_TOKENS):
        length = min(GROUP_TOKENS, count - start)
        end = offset + _group_bytes(vocabulary, length)
        value = int.from_bytes(payload[offset:end], "little")
        ids.extend(_split(value, vocabulary, length))
        offset = end
    return np.asarray(ids, dtype=np.int64)


def token_bytes(vocabulary: int, count: int) -> int:
    """Exact bytes of ``count`` packed ids.

    Raises:
        CodecError: vocabulary or count out of range.
    """
    if not 1 <= vocabulary <= MAX_VOCABULARY:
        raise CodecError(f"Vocabulary must be in 1..{MAX_VOCABULARY}, got {vocabulary}.")
    if not 0 <= count <= MAX_TOKENS:
        raise CodecError(f"Token count must be in 0..{MAX_TOKENS}, got {count}.")
    groups, rest = divmod(count, GROUP_TOKENS)
    return groups * _group_bytes(vocabulary, GROUP_TOKENS) + _group_bytes(vocabulary, rest)


def _group_bytes(vocabulary: int, length: int) -> int:
    return ((vocabulary**length - 1).bit_length() + 7) // 8


def _join(digits: Sequence[int], base: int) -> int:
    """The integer whose base-``base`` digits, lowest first, are given."""
    value = 0
    for digit in reversed(digits):
        value = value * base + digit
    return value


def _split(value: int, base: int, length: int) -> list[int]:
    """Inverse of ``_join``."""
    digits: list[int] = []
    for _ in range(length):
        value, digit = divmod(value, base)
        digits.append(digit)
    if value:
        raise CodecError("These bytes are no packing of token ids; check vocabulary and count.")
    return digits

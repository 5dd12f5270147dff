"""Token ids: log2(vocabulary) bits each, range-checked both ways."""

from __future__ import annotations

from math import ceil, log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scout_core.codec.tokens import GROUP_TOKENS, decode_tokens, encode_tokens, token_bytes
from scout_core.errors import CodecError


@given(st.data())
def test_any_ids_survive_in_exactly_the_announced_bytes(data: st.DataObject) -> None:
    vocabulary = data.draw(st.sampled_from([1, 2, 1000, 49152, 65536, 151936]))
    ids = data.draw(st.lists(st.integers(0, vocabulary - 1), max_size=3 * GROUP_TOKENS))
    payload = encode_tokens(ids, vocabulary)
    assert len(payload) == token_bytes(vocabulary, len(ids))
    assert decode_tokens(payload, vocabulary, len(ids)).tolist() == ids


def test_170_tokens_of_qwens_vocabulary_take_366_bytes() -> None:
    assert token_bytes(151_936, 170) == 366


def test_long_contexts_cost_within_a_fiftieth_bit_of_log2_vocabulary() -> None:
    bits = 8 * token_bytes(49_152, 4096) / 4096
    assert log2(49_152) <= bits <= log2(49_152) + 0.02
    assert bits <= ceil(log2(49_152))


@given(st.binary(max_size=64), st.integers(1, 70_000), st.integers(0, 40))
def test_arbitrary_bytes_are_a_canonical_packing_or_refused(
    payload: bytes, vocabulary: int, count: int
) -> None:
    try:
        ids = decode_tokens(payload, vocabulary, count)
    except CodecError:
        return
    assert len(ids) == count
    assert encode_tokens(ids, vocabulary) == payload


@pytest.mark.parametrize("ids", [[-1], [10], [3, 12]])
def test_ids_outside_the_vocabulary_are_refused(ids: list[int]) -> None:
    with pytest.raises(CodecError):
        encode_tokens(ids, 10)


@pytest.mark.parametrize(("vocabulary", "count"), [(0, 1), (1 << 30, 1), (10, -1), (10, 1 << 30)])
def test_absurd_sizes_are_refused_before_any_work(vocabulary: int, count: int) -> None:
    with pytest.raises(CodecError):
        decode_tokens(b"", vocabulary, count)


def test_bytes_above_the_largest_packing_are_refused() -> None:
    with pytest.raises(CodecError):
        decode_tokens(b"\xff", 10, 2)

"""Ranges of characters: one encoding each, and foreign bytes are refused or mean one thing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scout_core.codec.spans import (
    MAX_CHARACTERS,
    Span,
    decode_spans,
    encode_spans,
    most_span_bytes,
)
from scout_core.errors import PositionsError


@st.composite
def cases(draw: st.DrawFn) -> tuple[int, tuple[Span, ...]]:
    characters = draw(st.sampled_from([1, 2, 7, 300, 20_000, MAX_CHARACTERS]))
    borders = sorted(draw(st.sets(st.integers(0, characters), max_size=24)))
    return characters, tuple(zip(borders[::2], borders[1::2], strict=False))


@given(cases())
def test_ranges_survive_and_stay_within_their_bound(case: tuple[int, tuple[Span, ...]]) -> None:
    characters, spans = case
    payload = encode_spans(spans, characters)
    assert decode_spans(payload, characters, len(spans)) == spans
    assert len(payload) <= most_span_bytes(characters, len(spans))


@given(st.binary(max_size=40), st.integers(1, 5_000), st.integers(0, 12))
def test_foreign_bytes_are_refused_or_mean_exactly_one_thing(
    payload: bytes, characters: int, count: int
) -> None:
    try:
        spans = decode_spans(payload, characters, count)
    except PositionsError:
        return
    assert encode_spans(spans, characters) == payload


@pytest.mark.parametrize(
    "spans",
    [
        ((0, 0),),
        ((3, 2),),
        ((-1, 2),),
        ((0, 11),),
        ((0, 3), (3, 5)),
        ((4, 6), (0, 2)),
        ((0, 5), (4, 8)),
    ],
)
def test_improper_ranges_are_not_coded(spans: tuple[Span, ...]) -> None:
    with pytest.raises(PositionsError):
        encode_spans(spans, 10)


@pytest.mark.parametrize("characters", [0, -1, MAX_CHARACTERS + 1])
def test_texts_of_impossible_length_are_refused(characters: int) -> None:
    with pytest.raises(PositionsError, match="1 to"):
        encode_spans((), characters)
    with pytest.raises(PositionsError, match="1 to"):
        decode_spans(b"", characters, 0)


@pytest.mark.parametrize(
    ("payload", "count", "complaint"),
    [
        (b"\x00", 1, "ends inside"),
        (b"\x00\x00\x00", 1, "at most|follow"),
        (b"\x80\x00\x00\x00", 2, "shortest"),
        (b"\x80\x80\x80\x00", 2, "more than 3"),
        (b"\x00\x64", 1, "the text has"),
        (b"", 51, "don't fit"),
    ],
)
def test_each_fault_is_named(payload: bytes, count: int, complaint: str) -> None:
    with pytest.raises(PositionsError, match=complaint):
        decode_spans(payload, 100, count)


def test_a_short_range_after_a_short_gap_takes_two_bytes() -> None:
    assert len(encode_spans(((5, 60), (100, 228)), 1_000)) == 4

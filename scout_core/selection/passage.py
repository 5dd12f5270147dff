"""A passage, known by the texts of its tokens, cut into words and sentences.

Owns which token belongs to which of them; it knows neither tokenizers nor questions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scout_core.selection.words import WORD, stem_of

Ints = NDArray[np.int64]

_SENTENCE_END: Final = re.compile(r"[.!?][\"')\]]*\s+(?=[A-Z0-9\"'(\[])|\n+")


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage cut into words and sentences; every token belongs to one of each (or -1)."""

    words: list[str]
    stems: list[str]
    starts: Ints
    """Character offset of every word."""
    word_sentence: Ints
    token_word: Ints
    token_sentence: Ints
    token_starts_word: NDArray[np.bool_]
    sentences: int


def sentence_starts(text: str) -> list[int]:
    """Character offsets at which sentences begin; the first is 0."""
    return [0, *(match.end() for match in _SENTENCE_END.finditer(text) if match.end() < len(text))]


def token_sentences(pieces: Sequence[str]) -> Ints:
    """Sentence number of every token, from the texts of the tokens."""
    ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
    bounds = np.array(sentence_starts("".join(pieces)), dtype=np.int64)
    return np.searchsorted(bounds, np.maximum(ends - 1, 0), side="right") - 1


def cut_passage(pieces: Sequence[str]) -> Passage:
    """The passage that ``pieces`` are joined, a token being where its last character is."""
    text = "".join(pieces)
    found = list(WORD.finditer(text))
    words = [match.group().lower() for match in found]
    starts = np.array([match.start() for match in found], dtype=np.int64)
    ends = np.array([match.end() for match in found], dtype=np.int64)
    lengths = np.array([len(piece) for piece in pieces], dtype=np.int64)
    token_end = np.cumsum(lengths)
    last = np.maximum(token_end - 1, 0)
    bounds = np.array(sentence_starts(text), dtype=np.int64)
    index = np.searchsorted(starts, last, side="right") - 1
    inside = (index >= 0) & (last < ends[np.maximum(index, 0)]) if found else index >= 0
    token_word = np.where(inside, index, -1)
    begins = inside & (token_end - lengths <= starts[np.maximum(index, 0)]) if found else inside
    return Passage(
        words=words,
        stems=[stem_of(word) for word in words],
        starts=starts,
        word_sentence=np.searchsorted(bounds, starts, side="right") - 1,
        token_word=token_word,
        token_sentence=np.searchsorted(bounds, last, side="right") - 1,
        token_starts_word=begins,
        sentences=len(bounds),
    )


def pieces_of(text: str, spans: Sequence[tuple[int, int]]) -> list[str]:
    """The text of every token; joined they are ``text`` up to the last token's end."""
    pieces: list[str] = []
    done = 0
    for _, end in spans:
        pieces.append(text[done:end])
        done = max(done, end)
    return pieces

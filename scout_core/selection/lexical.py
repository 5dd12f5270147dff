"""Word overlap between a question and a passage, per context token: features without a model.

Owns the feature table (``FEATURES`` names every column). Works on token texts and a question, so
that it knows neither tokenizers nor models; costs a fraction of a millisecond per hundred tokens
in numpy. A trained readout (``scout_core.engine``'s scout scorer) weighs the columns.

Sources: inverse document frequency (Spärck Jones 1972) with the sentences of the passage as the
documents, BM25 (Robertson & Walker 1994) over those sentences, k1 = 1.2, b = 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from scout_core.selection.passage import Ints, Passage, cut_passage
from scout_core.selection.words import STOP_WORDS, WORD, stem_of

Floats = NDArray[np.float32]

_SCALES = (2.0, 5.0, 12.0, 30.0)
_KINDS = ("who", "when", "where", "which", "why", "how many", "how much", "how", "what")
_SHAPES = ("capital", "upper", "digit", "year", "stop", "short", "punctuation", "starts_word")
FEATURES: tuple[str, ...] = (
    "match",
    "match_idf",
    "stem_match",
    "bigram_match",
    *(
        f"{side}_{signal}_{int(scale)}"
        for scale in _SCALES
        for signal in ("match", "idf")
        for side in ("left", "right")
    ),
    *(f"density_{int(scale)}" for scale in _SCALES),
    "sentence_coverage",
    "sentence_bm25",
    "sentence_best",
    "sentence_first",
    "neighbour_coverage",
    "word_idf",
    "relative_position",
    "sentence_position",
    "sentence_length",
    *_SHAPES,
    *(f"kind_{kind.replace(' ', '_')}" for kind in _KINDS),
    "number_wanted_digit",
    "time_wanted_digit",
    "person_wanted_capital",
    "place_wanted_capital",
    "thing_wanted_capital",
)
"""Column names of :func:`features`, in order."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question's words in order, those that carry content, and the stems of these."""

    words: list[str]
    content: frozenset[str]
    stems: frozenset[str]


def _read(question: str) -> _Asked:
    words = [match.group().lower() for match in WORD.finditer(question)]
    content = [word for word in words if word not in STOP_WORDS]
    return _Asked(words, frozenset(content), frozenset(stem_of(word) for word in content))


def _decayed(signal: Floats, scale: float) -> Floats:
    """Left-to-right exponential sum that excludes the position itself."""
    out = np.zeros_like(signal)
    keep = float(np.exp(-1.0 / scale))
    level = 0.0
    for index, value in enumerate(signal.tolist()):
        out[index] = level
        level = level * keep + value
    return out


def _sentence_scores(
    passage: Passage, question: frozenset[str], idf: dict[str, float]
) -> tuple[Floats, Floats]:
    """Per sentence: share of the question's idf mass it covers, and its BM25 score."""
    total = sum(idf.get(stem, 0.0) for stem in question) or 1.0
    counts: list[dict[str, int]] = [{} for _ in range(passage.sentences)]
    lengths = np.zeros(passage.sentences, dtype=np.float32)
    for stem, sentence in zip(passage.stems, passage.word_sentence.tolist(), strict=True):
        lengths[sentence] += 1
        if stem in question:
            counts[sentence][stem] = counts[sentence].get(stem, 0) + 1
    mean_length = float(lengths.mean()) or 1.0
    coverage = np.zeros(passage.sentences, dtype=np.float32)
    bm25 = np.zeros(passage.sentences, dtype=np.float32)
    for sentence, found in enumerate(counts):
        coverage[sentence] = sum(idf[stem] for stem in found) / total
        norm = 1.2 * (0.5 + 0.5 * float(lengths[sentence]) / mean_length)
        bm25[sentence] = sum(idf[s] * 2.2 * c / (c + norm) for s, c in found.items())
    return coverage, bm25


def _idf(passage: Passage) -> dict[str, float]:
    holders: dict[str, set[int]] = {}
    for stem, sentence in zip(passage.stems, passage.word_sentence.tolist(), strict=True):
        holders.setdefault(stem, set()).add(sentence)
    count = passage.sentences
    return {
        stem: float(np.log(1.0 + (count - len(held) + 0.5) / (len(held) + 0.5)))
        for stem, held in holders.items()
    }


def question_kind(question: str) -> int:
    """Index into the question kinds (who, when, …), or -1."""
    lowered = f" {question.lower()} "
    for index, kind in enumerate(_KINDS):
        if f" {kind} " in lowered:
            return index
    return -1


def _word_signals(passage: Passage, asked: _Asked, idf: dict[str, float]) -> Floats:
    """Per word: match, match × idf, stem match, bigram match, idf."""
    bigrams = set(pairwise(asked.words))
    rows = np.zeros((len(passage.words), 5), dtype=np.float32)
    for index, (word, stem) in enumerate(zip(passage.words, passage.stems, strict=True)):
        weight = idf[stem]
        hit = stem in asked.stems
        following = passage.words[index + 1] if index + 1 < len(passage.words) else ""
        before = passage.words[index - 1] if index else ""
        paired = (word, following) in bigrams or (before, word) in bigrams
        rows[index] = (word in asked.content, hit * weight, hit, paired, weight)
    return rows


def _shapes(pieces: Sequence[str], passage: Passage) -> Floats:
    out = np.zeros((len(pieces), len(_SHAPES)), dtype=np.float32)
    for index, piece in enumerate(pieces):
        bare = piece.strip()
        word = int(passage.token_word[index])
        text = passage.words[word] if word >= 0 else ""
        out[index] = (
            bare[:1].isupper(),
            len(bare) > 1 and bare.isupper(),
            any(character.isdigit() for character in bare),
            text.isdigit() and len(text) == 4,
            text in STOP_WORDS,
            len(text) <= 2,
            word < 0,
            passage.token_starts_word[index],
        )
    return out


def _near(signals: Floats) -> Floats:
    """Decayed sums of match and idf on both sides and of everything, per word."""
    columns: list[Floats] = []
    densities: list[Floats] = []
    for scale in _SCALES:
        for column in (2, 1):
            signal = signals[:, column]
            columns.append(_decayed(signal, scale))
            columns.append(_decayed(signal[::-1], scale)[::-1])
        densities.append(columns[-1] + columns[-2] + signals[:, 1])
    return np.stack([*columns, *densities], axis=1)


def _sentence_matches(passage: Passage, asked: _Asked, idf: dict[str, float]) -> Floats:
    """Per token, of its sentence: coverage, BM25 as a share of the best, whether it is the best
    and the first, and the better coverage of its neighbours."""
    coverage, bm25 = _sentence_scores(passage, asked.stems, idf)
    padded = np.pad(coverage, 1)
    around = np.maximum(padded[:-2], padded[2:])
    best = float(bm25.max()) or 1.0
    first = np.arange(passage.sentences) == 0
    columns = (coverage, bm25 / best, bm25 >= best, first, around)
    table = np.stack([column.astype(np.float32) for column in columns], axis=1)
    return table[passage.token_sentence]


def _places(sentence: Ints) -> NDArray[np.float64]:
    """Per token: where it is in the passage and in its sentence, and how long that is."""
    position = np.arange(len(sentence))
    first_of = np.searchsorted(sentence, sentence, side="left")
    length_of = np.bincount(sentence)[sentence]
    return np.stack(
        [
            position / max(len(sentence) - 1, 1),
            (position - first_of) / np.maximum(length_of, 1),
            np.log1p(length_of) / 4.0,
        ],
        axis=1,
    )


def _kinds(question: str, count: int) -> Floats:
    """The question's kind, the same for every token."""
    kinds = np.zeros((count, len(_KINDS)), dtype=np.float32)
    kind = question_kind(question)
    if kind >= 0:
        kinds[:, kind] = 1.0
    return kinds


def _wanted(shapes: Floats, kinds: Floats) -> Floats:
    """Whether a token has the shape of what the question asks for."""
    has = dict(zip(_SHAPES, shapes.T, strict=True))
    asks = dict(zip(_KINDS, kinds.T, strict=True))
    digit, capital = has["digit"], has["capital"]
    return np.stack(
        [
            digit * (asks["how many"] + asks["how much"]),
            digit * asks["when"],
            capital * asks["who"],
            capital * asks["where"],
            capital * (asks["which"] + asks["what"]),
        ],
        axis=1,
    )


def features(pieces: Sequence[str], question: str) -> Floats:
    """Feature table ``[n, len(FEATURES)]`` for context tokens with texts ``pieces``.

    Args:
        pieces: the decoded text of every context token; joined they are the passage. A token
            belongs to the word of its *last* character: blanks lead, as in byte-level BPE.
        question: the question's text.
    """
    count = len(pieces)
    passage = cut_passage(pieces)
    if not passage.words:
        return np.zeros((count, len(FEATURES)), dtype=np.float32)
    asked, idf = _read(question), _idf(passage)
    signals = _word_signals(passage, asked, idf)
    word = np.maximum(passage.token_word, 0)
    has_word = (passage.token_word >= 0)[:, None]
    shapes, kinds = _shapes(pieces, passage), _kinds(question, count)
    blocks = (
        signals[word, :4] * has_word,
        _near(signals)[word],
        _sentence_matches(passage, asked, idf),
        signals[word, 4:],
        _places(passage.token_sentence),
        shapes,
        kinds,
        _wanted(shapes, kinds),
    )
    return np.concatenate([block.astype(np.float32) for block in blocks], axis=1)

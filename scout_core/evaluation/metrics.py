"""Answer scores and the statistics that go with them.

Owns: SQuAD's normalisation, F1 and exact match, percentile bootstrap intervals and the paired
permutation test. Knows neither models nor selections; randomness comes from seeds.

Source of the scores: the SQuAD v1.1/v2.0 evaluation scripts (Rajpurkar et al. 2016, 2018): lower
case, no punctuation, no articles, bag-of-words F1, the best over the gold answers.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

UNANSWERABLE = "unanswerable"
"""What the bundled cloud model is trained to say when the passage has no answer."""
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = frozenset(string.punctuation)
_BOOTSTRAP_CHUNK = 250


def normalised(text: str) -> str:
    """Lower case, without punctuation, articles and repeated blanks."""
    kept = "".join(character for character in text.lower() if character not in _PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", kept).split())


def _pair_f1(prediction: str, gold: str) -> float:
    predicted, wanted = normalised(prediction).split(), normalised(gold).split()
    if not predicted or not wanted:
        return float(predicted == wanted)
    shared = sum((Counter(predicted) & Counter(wanted)).values())
    if shared == 0:
        return 0.0
    precision, recall = shared / len(predicted), shared / len(wanted)
    return 2 * precision * recall / (precision + recall)


def _golds(answers: Sequence[str]) -> Sequence[str]:
    return answers or (UNANSWERABLE,)


def answer_f1(prediction: str, answers: Sequence[str]) -> float:
    """Best word F1 in [0, 1] over ``answers``; no answers means "unanswerable" is the right one."""
    return max(_pair_f1(prediction, gold) for gold in _golds(answers))


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """1.0 if the normalised prediction equals one of the normalised answers."""
    wanted = {normalised(gold) for gold in _golds(answers)}
    return float(normalised(prediction) in wanted)


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and its 95 % percentile bootstrap interval."""

    value: float
    low: float
    high: float


def _resampled(count: int, seed: int, resamples: int) -> list[NDArray[np.int64]]:
    generator = np.random.default_rng(seed)
    chunks: list[NDArray[np.int64]] = []
    for start in range(0, resamples, _BOOTSTRAP_CHUNK):
        size = min(_BOOTSTRAP_CHUNK, resamples - start)
        chunks.append(generator.integers(0, count, size=(size, count)))
    return chunks


def _percentiles(value: float, draws: Floats) -> Interval:
    low, high = np.percentile(draws, [2.5, 97.5])
    return Interval(value, float(low), float(high))


def mean_interval(values: Floats, *, seed: int = 0, resamples: int = 2000) -> Interval:
    """Mean of ``values`` [n] with its bootstrap interval over questions.

    Raises:
        ValueError: ``values`` is empty.
    """
    if values.size == 0:
        raise ValueError("An interval needs at least one value.")
    draws = [values[index].mean(axis=1) for index in _resampled(values.size, seed, resamples)]
    return _percentiles(float(values.mean()), np.concatenate(draws))


def ratio_interval(
    values: Floats, reference: Floats, *, seed: int = 0, resamples: int = 2000
) -> Interval:
    """Ratio of means of two paired series [n], resampled together.

    Raises:
        ValueError: the series differ in length, are empty, or the reference's mean is zero.
    """
    if values.size != reference.size or values.size == 0 or reference.mean() == 0:
        raise ValueError("A ratio needs two paired series and a reference mean above zero.")
    draws: list[Floats] = []
    for index in _resampled(values.size, seed, resamples):
        bottom = reference[index].mean(axis=1)
        draws.append(values[index].mean(axis=1) / np.maximum(bottom, 1e-12))
    return _percentiles(float(values.mean() / reference.mean()), np.concatenate(draws))


def paired_p_value(
    values: Floats, reference: Floats, *, seed: int = 0, permutations: int = 10_000
) -> float:
    """Two-sided sign-flip permutation test on the mean difference of paired series [n].

    The +1 in numerator and denominator counts the observed labelling (Phipson & Smyth 2010), so
    the result is never 0.
    """
    difference = values - reference
    difference = difference[difference != 0]
    if difference.size == 0:
        return 1.0
    observed = abs(float(difference.sum()))
    generator = np.random.default_rng(seed)
    extreme = 0
    for start in range(0, permutations, _BOOTSTRAP_CHUNK):
        size = min(_BOOTSTRAP_CHUNK, permutations - start)
        signs = generator.integers(0, 2, size=(size, difference.size)) * 2 - 1
        extreme += int((np.abs(signs @ difference) >= observed - 1e-12).sum())
    return (extreme + 1) / (permutations + 1)


def per_question(
    score: Callable[[str, Sequence[str]], float],
    predictions: Sequence[str],
    answers: Sequence[Sequence[str]],
) -> Floats:
    """``score`` of every prediction, [n] float64."""
    pairs = zip(predictions, answers, strict=True)
    return np.array([score(prediction, golds) for prediction, golds in pairs], dtype=np.float64)

"""Selectors that read nothing: random, recent, sinks and window, and the oracle that knows.

Every baseline gives one score per context token, ``[n]`` float32, higher kept first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float32]
SINK_TOKENS = 4
"""First tokens kept beside the window (StreamingLLM, Xiao et al. 2023)."""


def random_scores(count: int, seed: int) -> Scores:
    return np.random.default_rng(seed).random(count).astype(np.float32)


def recent_scores(count: int) -> Scores:
    """The most recent positions: the end of the context."""
    return np.arange(count, dtype=np.float32)


def sink_window_scores(count: int) -> Scores:
    """The first four tokens and the most recent ones."""
    scores = recent_scores(count)
    scores[:SINK_TOKENS] += count
    return scores


def oracle_scores(count: int, spans: Sequence[tuple[int, int]]) -> Scores:
    """Nearness to the closest occurrence of an answer; without one, recency."""
    if not spans:
        return recent_scores(count)
    place = np.arange(count)
    distances = [
        np.maximum(np.maximum(begin - place, place - (end - 1)), 0) for begin, end in spans
    ]
    return -np.minimum.reduce(distances).astype(np.float32)

"""The entropy coder's streams by the textbook's arithmetic, in Python's integers."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from scout_core.codec.rans import LANES, LOWEST_STATE, TOTAL


def defined_stream(
    rows: Sequence[NDArray[np.uint8]], models: NDArray[np.uint8], frequencies_of: NDArray[np.uint16]
) -> bytes:
    """The stream by the textbook's arithmetic, in Python's integers: the format's definition."""
    states = [LOWEST_STATE] * LANES
    words: list[int] = []
    for row, model in reversed(list(enumerate(models.tolist()))):
        frequencies = frequencies_of[model].astype(int).tolist()
        for index, symbol in reversed(list(enumerate(rows[row].tolist()))):
            state, frequency = states[index % LANES], frequencies[symbol]
            if state >= frequency << 20:
                words.append(state & 0xFFFF)
                state >>= 16
            start = sum(frequencies[:symbol])
            states[index % LANES] = state // frequency * TOTAL + state % frequency + start
    return struct.pack(f"<{LANES}I{len(words)}H", *states, *reversed(words))

"""Interleaved range asymmetric numeral systems: symbols under static models as bytes.

Owns the entropy coder (Duda, arXiv 1311.2540; the 32-bit state with 16-bit words is the usual
"word" variant); knows nothing of what symbols mean. Symbol i belongs to lane i mod ``LANES``, so
that a core works on several states at once; all lanes share one stream of words. A stream is: the
final states (``LANES`` little-endian uint32), then the words in the order in which the decoder
takes them. The decoder must end with every state at its start value and no word left over.
"""

# numba types are unknown to the type checker inside compiled functions
# pyright: reportUnknownParameterType=false, reportMissingParameterType=false

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scout_core.codec.compiled import compiled
from scout_core.errors import CodecError

PRECISION_BITS: Final = 12
TOTAL: Final = 1 << PRECISION_BITS
"""Frequencies of one model sum to this."""
LANES: Final = 8
LOWEST_STATE: Final = 1 << 16
STATE_BYTES: Final = 4 * LANES

Symbols = NDArray[np.uint8]
Frequencies = NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class RansModels:
    """Static models, ready to code with.

    ``frequencies`` and ``starts`` are ``[models, alphabet]``; ``slots`` is ``[models, TOTAL]``:
    symbol in bits 0–7, frequency − 1 in bits 8–19, offset in the symbol's range in bits 20–31.
    """

    frequencies: NDArray[np.uint32]
    starts: NDArray[np.uint32]
    slots: NDArray[np.uint32]

    @classmethod
    def of(cls, frequencies: Frequencies) -> RansModels:
        """Builds the lookups for frequencies ``[models, alphabet]`` with rows summing to TOTAL.

        Raises:
            CodecError: wrong rank, more than 256 symbols, or a row of another sum.
        """
        if frequencies.ndim != 2 or not 1 <= frequencies.shape[1] <= 256:
            raise CodecError("Model frequencies must be [models, alphabet] of at most 256 symbols.")
        wide = frequencies.astype(np.uint32)
        if bool((wide.sum(axis=1) != TOTAL).any()):
            raise CodecError(f"Model frequencies must sum to {TOTAL}.")
        starts = np.cumsum(wide, axis=1, dtype=np.uint32) - wide
        symbols = np.arange(wide.shape[1], dtype=np.uint32)
        slots = np.empty((wide.shape[0], TOTAL), dtype=np.uint32)
        for model, row in enumerate(wide):
            symbol = np.repeat(symbols, row)
            offset = np.arange(TOTAL, dtype=np.uint32) - starts[model][symbol]
            slots[model] = symbol | ((row[symbol] - 1) << 8) | (offset << 20)
        return cls(frequencies=wide, starts=starts, slots=slots)


def normalised(counts: NDArray[np.int64]) -> Frequencies:
    """Frequencies summing to TOTAL, proportional to ``counts`` ``[alphabet]``, none lost to zero.

    Raises:
        CodecError: nothing was counted, or more than TOTAL symbols were.
    """
    seen = counts > 0
    if not 0 < int(seen.sum()) <= TOTAL:
        raise CodecError("A model needs at least one symbol and no more than it has slots.")
    spare = TOTAL - int(seen.sum())
    shares = counts * spare // counts.sum()
    frequencies = shares + seen
    frequencies[int(np.argmax(counts))] += TOTAL - frequencies.sum()
    return frequencies.astype(np.uint16)


def encode_symbols(symbols: Symbols, models: Symbols, coder: RansModels) -> bytes:
    """Codes ``symbols`` ``[n]``, symbol i under model ``models[i]``.

    Raises:
        CodecError: a symbol has frequency 0 in its model.
    """
    words = np.empty(symbols.size + LANES, dtype="<u2")
    states = np.empty(LANES, dtype=np.uint32)
    used = int(_encode(symbols, models, coder.frequencies, coder.starts, words, states))
    if used < 0:
        raise CodecError("A symbol does not occur in its model; the encoder chose the wrong one.")
    return states.astype("<u4").tobytes() + words[words.size - used :].tobytes()


def decode_symbols(payload: memoryview, models: Symbols, coder: RansModels) -> Symbols:
    """Inverse of ``encode_symbols``: symbols ``[n]`` for ``models`` ``[n]``.

    Raises:
        CodecError: the payload is no coding of ``n`` symbols under these models.
    """
    if len(payload) < STATE_BYTES or len(payload) % 2:
        raise CodecError("Entropy-coded stream is truncated.")
    states = np.frombuffer(payload[:STATE_BYTES], dtype="<u4").astype(np.uint32)
    words = np.frombuffer(payload[STATE_BYTES:], dtype="<u2")
    symbols = np.empty(models.size, dtype=np.uint8)
    if not _decode(symbols, models, coder.slots, words, states):
        raise CodecError("Entropy-coded stream does not end where it should.")
    return symbols


@compiled
def _encode(symbols, models, frequencies, starts, words, states):
    """Fills ``words`` from its end; returns how many it used, or -1 for an impossible symbol."""
    states[:] = np.uint32(LOWEST_STATE)
    cursor = words.size
    for index in range(symbols.size - 1, -1, -1):
        lane = index % LANES
        model = models[index]
        symbol = symbols[index]
        frequency = frequencies[model, symbol]
        if frequency == 0:
            return -1
        state = states[lane]
        if (state >> np.uint32(32 - PRECISION_BITS)) >= frequency:
            cursor -= 1
            words[cursor] = np.uint16(state & np.uint32(0xFFFF))
            state >>= np.uint32(16)
        quotient = np.uint32(state // frequency)
        remainder = np.uint32(state - quotient * frequency)
        states[lane] = np.uint32(
            (quotient << np.uint32(PRECISION_BITS)) + remainder + starts[model, symbol]
        )
    return words.size - cursor


@compiled
def _decode(symbols, models, slots, words, states):
    """Fills ``symbols``; whether words and states came out exactly."""
    cursor = 0
    available = words.size
    for index in range(symbols.size):
        lane = index % LANES
        state = states[lane]
        entry = slots[models[index], state & np.uint32(TOTAL - 1)]
        symbols[index] = np.uint8(entry & np.uint32(0xFF))
        frequency = ((entry >> np.uint32(8)) & np.uint32(TOTAL - 1)) + np.uint32(1)
        state = np.uint32(
            frequency * (state >> np.uint32(PRECISION_BITS)) + (entry >> np.uint32(20))
        )
        if state < np.uint32(LOWEST_STATE):
            if cursor == available:
                return False
            state = np.uint32((state << np.uint32(16)) | np.uint32(words[cursor]))
            cursor += 1
        states[lane] = state
    exact = cursor == available
    for lane in range(LANES):
        exact &= states[lane] == np.uint32(LOWEST_STATE)
    return exact

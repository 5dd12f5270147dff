"""Interleaved range asymmetric numeral systems: rows of symbols under static models as bytes.

Owns the entropy coder (Duda, arXiv 1311.2540; the 32-bit state with 16-bit words is the usual
"word" variant); knows nothing of what symbols mean. Symbols come in rows of equal length, and a
row has one model, so that its lookups stay in the first-level cache. Symbol i of a row belongs to
lane i mod ``LANES``: a core works on several states at once. All lanes share one stream of words.
A stream is: the final states (``LANES`` little-endian uint32), then the words in the order in
which the decoder takes them, row after row. The decoder must end with every state at its start
value and no word left over. In memory rows that belong together lie side by side, as the runs of
one line; a run may be left out.

No branch depends on data: a word is always written (read) and the cursor moves if it was due;
mispredicted branches would cost more than the arithmetic. The encoder multiplies by 2^44 / f
rounded up instead of dividing by the frequency f; with states below f · 2^20 and f up to 2^12
the quotient is exact and the product stays below 2^64.
"""

# numba types are unknown to the type checker inside compiled functions
# pyright: reportUnknownParameterType=false, reportMissingParameterType=false

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scout_core.codec.compiled import compiled, inlined
from scout_core.errors import CodecError

PRECISION_BITS: Final = 12
TOTAL: Final = 1 << PRECISION_BITS
"""Frequencies of one model sum to this."""
LANES: Final = 8
LOWEST_STATE: Final = 1 << 16
STATE_BYTES: Final = 4 * LANES
RECIPROCAL_BITS: Final = 44
NOT_CODED: Final = 255
"""In place of a model: this run is not in the stream."""

Symbols = NDArray[np.uint8]
Frequencies = NDArray[np.uint16]
Bounds = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RansModels:
    """Static models, ready to code with.

    ``slots`` is ``[models, TOTAL]``: symbol in bits 0–7, frequency − 1 in bits 8–19, offset in the
    symbol's range in bits 20–31. ``reciprocals`` and ``ranges`` are ``[models, alphabet]``: 2^44 /
    frequency, rounded up (0 where the symbol is impossible), and frequency << 16 | start.
    """

    slots: NDArray[np.uint32]
    reciprocals: NDArray[np.uint64]
    ranges: NDArray[np.uint32]

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
        possible = np.maximum(wide, 1).astype(np.uint64)
        reciprocals = ((1 << RECIPROCAL_BITS) + possible - 1) // possible
        reciprocals[wide == 0] = 0
        return cls(
            slots=slots, reciprocals=reciprocals, ranges=((wide << 16) | starts).astype(np.uint32)
        )


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


def encode_rows(symbols: Symbols, models: Symbols, coder: RansModels) -> bytes:
    """Codes ``symbols`` ``[rows, length]``, row i under model ``models[i]``.

    Raises:
        CodecError: a symbol has frequency 0 in its model.
    """
    return encode_runs(symbols, models[:, None], _whole(symbols.shape[1]), coder)


def encode_runs(symbols: Symbols, models: Symbols, bounds: Bounds, coder: RansModels) -> bytes:
    """Codes the runs of ``symbols`` ``[lines, length]``, each as a row of its own.

    Args:
        models: ``[lines, runs]``, or ``NOT_CODED``.
        bounds: ``[runs + 1]``: run r of a line is its symbols from bounds[r] to bounds[r + 1].

    Raises:
        CodecError: a symbol has frequency 0 in its model.
    """
    words = np.empty(symbols.size + 1, dtype="<u2")
    states = np.empty(LANES, dtype=np.uint32)
    tables = (coder.reciprocals, coder.ranges)
    used = int(_encode(symbols, models, bounds, tables, words, states))
    if used < 0:
        raise CodecError("A symbol does not occur in its model; the encoder chose the wrong one.")
    return states.astype("<u4").tobytes() + words[words.size - used :].tobytes()


def decode_rows(
    payload: bytes | memoryview, models: Symbols, length: int, coder: RansModels
) -> Symbols:
    """Inverse of ``encode_rows``: symbols ``[rows, length]`` for ``models`` ``[rows]``.

    Raises:
        CodecError: the payload is no coding of as many symbols under these models.
    """
    return decode_runs(payload, models[:, None], _whole(length), coder)


def decode_runs(
    payload: bytes | memoryview, models: Symbols, bounds: Bounds, coder: RansModels
) -> Symbols:
    """Inverse of ``encode_runs``: symbols ``[lines, length]``, 0 where they are not coded.

    Raises:
        CodecError: the payload is no coding of as many symbols under these models.
    """
    if len(payload) < STATE_BYTES or len(payload) % 2:
        raise CodecError("Entropy-coded stream is truncated.")
    states = np.frombuffer(payload, dtype="<u4", count=LANES).astype(np.uint32)
    available = (len(payload) - STATE_BYTES) // 2
    words = np.zeros(available + LANES, dtype=np.uint16)  # the decoder looks a few words ahead
    words[:available] = np.frombuffer(payload, dtype="<u2", offset=STATE_BYTES)
    symbols = np.zeros((models.shape[0], int(bounds[-1])), dtype=np.uint8)
    if not _decode(symbols, models, bounds, coder.slots, words, states):
        raise CodecError("Entropy-coded stream does not end where it should.")
    return symbols


def _whole(length: int) -> Bounds:
    """One run."""
    return np.array([0, length], dtype=np.int64)


@inlined
def _push(symbols, count, model, coder, cursor, stream):
    """Codes ``symbols[:count]``, last one first; the cursor then, and the least frequency."""
    reciprocals, ranges = coder
    words, states = stream
    least = np.uint32(TOTAL << 16)
    for index in range(count):
        lane = np.uint64(count - 1 - index)
        symbol = np.uint64(symbols[lane])
        state = states[lane]
        words[cursor] = np.uint16(state & np.uint32(0xFFFF))
        span = ranges[model, symbol]
        least = min(least, span)
        frequency = span >> np.uint32(16)
        full = (state >> np.uint32(32 - PRECISION_BITS)) >= frequency
        cursor -= np.uint64(full)
        state = np.uint32(state >> np.uint32(16)) if full else state
        product = np.uint64(state) * reciprocals[model, symbol]
        quotient = np.uint32(product >> np.uint64(RECIPROCAL_BITS))
        remainder = np.uint32(state - quotient * frequency)
        quotient = np.uint32(quotient << np.uint32(PRECISION_BITS))
        states[lane] = np.uint32(quotient + remainder + (span & np.uint32(0xFFFF)))
    return cursor, least


@compiled
def _encode(symbols, models, bounds, coder, words, states):
    """Fills ``words`` from its end; returns how many it used, or -1 for an impossible symbol."""
    states[:] = np.uint32(LOWEST_STATE)
    lines, runs = models.shape
    cursor = np.uint64(words.size - 1)
    stream = (words, states)
    possible = True
    for place in range(lines * runs - 1, -1, -1):
        row, run = place // runs, place % runs
        if models[row, run] == NOT_CODED:
            continue
        model, line = np.uint64(models[row, run]), symbols[row, bounds[run] : bounds[run + 1]]
        whole = line.size - line.size % LANES
        tail = line.size - whole
        cursor, least = _push(line[whole:], tail, model, coder, cursor, stream)
        possible &= least > np.uint32(0xFFFF)
        for start in range(whole - LANES, -1, -LANES):
            cursor, least = _push(line[start:], LANES, model, coder, cursor, stream)
            possible &= least > np.uint32(0xFFFF)
    return np.int64(words.size) - np.int64(cursor) - 1 if possible else np.int64(-1)


@inlined
def _pop(symbols, count, table, words, cursor, states):
    """Fills ``symbols[:count]``; the cursor then."""
    for lane in range(count):
        state = states[lane]
        entry = table[state & np.uint32(TOTAL - 1)]
        symbols[lane] = np.uint8(entry & np.uint32(0xFF))
        frequency = ((entry >> np.uint32(8)) & np.uint32(TOTAL - 1)) + np.uint32(1)
        frequency = np.uint32(frequency)
        state = np.uint32(
            frequency * (state >> np.uint32(PRECISION_BITS)) + (entry >> np.uint32(20))
        )
        refilled = np.uint32((state << np.uint32(16)) | np.uint32(words[cursor]))
        empty = state < np.uint32(LOWEST_STATE)
        states[lane] = refilled if empty else state
        cursor += np.uint64(empty)
    return cursor


@compiled
def _decode(symbols, models, bounds, slots, words, states):
    """Fills ``symbols``; whether words and states came out exactly."""
    lines, runs = models.shape
    cursor = np.uint64(0)
    available = np.uint64(words.size - LANES)
    for place in range(lines * runs):
        row, run = place // runs, place % runs
        if models[row, run] == NOT_CODED:
            continue
        table, line = slots[models[row, run]], symbols[row, bounds[run] : bounds[run + 1]]
        whole = line.size - line.size % LANES
        for start in range(0, whole, LANES):
            cursor = _pop(line[start:], LANES, table, words, cursor, states)
            if cursor > available:
                return False
        cursor = _pop(line[whole:], line.size - whole, table, words, cursor, states)
        if cursor > available:
            return False
    exact = cursor == available
    for lane in range(LANES):
        exact &= states[lane] == np.uint32(LOWEST_STATE)
    return exact

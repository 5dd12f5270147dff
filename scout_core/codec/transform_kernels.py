"""The loops of the ``transform`` codec: cache to rows, values to symbols, and back.

Owns the arithmetic between the matrix products, and nothing else. Rows are
``[positions, width]``, ``width = layers in group · kv_heads · head_dim``; symbols and coefficients
are ``[sent, positions]``, the positions of one grade side by side (``transform_runs``): a loop's
``runs`` are the models ``[sent, runs]``, ``NOT_CODED`` where a run of a coefficient is not sent,
and the bounds ``[runs + 1]`` of the runs. Every operation is a single float32 one in the written
order, so that all hosts decode the same bits.
"""

# numba types are unknown to the type checker inside compiled functions
# pyright: reportUnknownParameterType=false, reportMissingParameterType=false
# pyright: reportUntypedFunctionDecorator=false

from __future__ import annotations

from typing import Final

import numpy as np

from scout_core.codec.bf16 import rounded, widened
from scout_core.codec.compiled import compiled
from scout_core.codec.rans import NOT_CODED

ZERO: Final = 127
ESCAPE: Final = 255
ROUNDING: Final = 0.4
"""Added before truncation: values up to 0.6 steps become 0, which costs little and saves bits."""
LARGEST_VALUE: Final = float(1 << 30)
LARGEST_WORD: Final = 127 * 256 + 127
"""Coefficients are decoded as two signed bytes, relative to the largest of their position."""


@compiled
def gather_rows(words, place, frame, rows):
    """Fills rows (float32) from a part of a cache: unrotated, and measured from an origin.

    Args:
        words: bf16 ``[layers, 2, kv_heads, positions, head_dim]``.
        place: first layer, kind, and the position of each row in the cache.
        frame: cosines and sines ``[positions, head_dim / 2]`` (1 and 0 for values); origins
            ``[n, width]``; for each position the origin's index, or -1: the row is zero.
    """
    first_layer, kind, order = place
    cosines, sines, origins, origin_of = frame
    _, _, heads, _, head_dim = words.shape
    half = head_dim // 2
    for index in range(rows.shape[0]):
        position = order[index]
        origin = origin_of[position]
        cosine, sine = cosines[position], sines[position]
        for block in range(rows.shape[1] // head_dim):
            layer, head = first_layer + block // heads, block % heads
            line = words[layer, kind, head, position]
            target = rows[index, block * head_dim : (block + 1) * head_dim]
            if origin < 0:
                target[:] = np.float32(0)
                continue
            base = origins[origin, block * head_dim : (block + 1) * head_dim]
            for channel in range(half):
                first, second = widened(line[channel]), widened(line[half + channel])
                turned = first * cosine[channel] + second * sine[channel]
                target[channel] = turned - base[channel]
                turned = second * cosine[channel] - first * sine[channel]
                target[half + channel] = turned - base[half + channel]


@compiled
def quantise(values, scales, runs, symbols):
    """Symbols of ``values`` times their run's scale, where a model is there for them.

    Args:
        scales: float32 ``[runs]``.

    Returns:
        How many escapes, or -1 if a value is too large.
    """
    models, bounds = runs
    found = 0
    bounded = True
    for row in range(values.shape[0]):
        for run in range(scales.size):
            if models[row, run] == NOT_CODED:
                continue
            scale = scales[run]
            line = values[row, bounds[run] : bounds[run + 1]]
            target = symbols[row, bounds[run] : bounds[run + 1]]
            escapes = np.int32(0)
            for index in range(line.size):
                value = line[index] * scale
                size = abs(value)
                bounded &= size < np.float32(LARGEST_VALUE)
                magnitude = np.int32(min(size, np.float32(LARGEST_VALUE)) + np.float32(ROUNDING))
                signed = magnitude if value >= np.float32(0) else -magnitude
                escaped = magnitude > ZERO
                escapes += np.int32(escaped)
                target[index] = np.uint8(ESCAPE) if escaped else np.uint8(signed + ZERO)
            found += escapes
    return found if bounded else -1


@compiled
def collect_escapes(values, scales, runs, symbols, escapes):
    """The values behind the escapes, in order."""
    models, bounds = runs
    found = 0
    for row in range(values.shape[0]):
        for run in range(scales.size):
            if models[row, run] == NOT_CODED:
                continue
            for index in range(bounds[run], bounds[run + 1]):
                if symbols[row, index] == ESCAPE:
                    value = values[row, index] * scales[run]
                    magnitude = np.int32(abs(value) + np.float32(ROUNDING))
                    escapes[found] = magnitude if value >= np.float32(0) else -magnitude
                    found += 1


@compiled
def dequantise(symbols, runs, shifts, scales, escapes, values):
    """Coefficients from symbols, 0 where there are none.

    Args:
        shifts: float32 ``[models]``: how far beyond ±1 the values lie that became ±1.
        scales: float32 ``[sent]``.

    Returns:
        How many escapes were met (it never reads beyond them).
    """
    models, bounds = runs
    found = 0
    for row in range(symbols.shape[0]):
        scale = scales[row]
        for run in range(models.shape[1]):
            line = symbols[row, bounds[run] : bounds[run + 1]]
            target = values[row, bounds[run] : bounds[run + 1]]
            if models[row, run] == NOT_CODED:
                target[:] = np.float32(0)
                continue
            shift = shifts[models[row, run]]
            escaped = np.int32(0)
            for index in range(line.size):
                symbol = np.int32(line[index])
                value = np.float32(symbol - ZERO)
                value += shift if symbol == ZERO + 1 else np.float32(0)
                value -= shift if symbol == ZERO - 1 else np.float32(0)
                escaped += np.int32(symbol == ESCAPE)
                target[index] = value * scale
            if escaped > 0:
                for index in range(line.size):
                    if line[index] == ESCAPE:
                        if found < escapes.size:
                            target[index] = np.float32(escapes[found]) * scale
                        found += 1
    return found


@compiled
def split_planes(values, planes, units):
    """Coefficients as 16-bit multiples of a unit per position, cut into two signed bytes.

    Args:
        values: ``[sent, positions]``.
        planes: int8 ``[sent, 2, positions]``: the high bytes, then the low ones.
        units: float32 ``[positions]``.
    """
    positions = values.shape[1]
    units[:] = np.float32(0)
    for row in range(values.shape[0]):
        line = values[row]
        for index in range(positions):
            size = abs(line[index])
            units[index] = size if size > units[index] else units[index]
    inverse = np.empty(positions, np.float32)
    for index in range(positions):
        largest = units[index]
        divisor = largest if largest > np.float32(0) else np.float32(1)
        inverse[index] = np.float32(LARGEST_WORD) / divisor
        units[index] = largest / np.float32(LARGEST_WORD)
    for row in range(values.shape[0]):
        line, upper, lower = values[row], planes[row, 0], planes[row, 1]
        for index in range(positions):
            word = np.int32(np.rint(line[index] * inverse[index]))
            high = np.int32((word + np.int32(128)) >> np.int32(8))
            upper[index] = np.int8(high)
            lower[index] = np.int8(word - np.int32(high << np.int32(8)))


@compiled
def scatter_rows(sums, units, frame, words, place):
    """Fills a part of a cache from the products of the planes; inverse of ``gather_rows``.

    Args:
        sums: int32 ``[2, positions, width]``: of the high bytes, then of the low ones.
        units: float32 ``[positions]``.
    """
    first_layer, kind, order = place
    cosines, sines, origins, origin_of = frame
    _, _, heads, _, head_dim = words.shape
    half = head_dim // 2
    line = np.empty(head_dim, np.float32)
    for index in range(sums.shape[1]):
        position = order[index]
        unit, origin = units[index], max(origin_of[position], 0)
        cosine, sine = cosines[position], sines[position]
        for block in range(sums.shape[2] // head_dim):
            here = slice(block * head_dim, (block + 1) * head_dim)
            high, low, base = sums[0, index, here], sums[1, index, here], origins[origin, here]
            for channel in range(head_dim):
                word = np.float32(high[channel]) * np.float32(256) + np.float32(low[channel])
                line[channel] = word * unit + base[channel]
            layer, head = first_layer + block // heads, block % heads
            target = words[layer, kind, head, position]
            for channel in range(half):
                first, second = line[channel], line[half + channel]
                turned = first * cosine[channel] - second * sine[channel]
                target[channel] = rounded(turned)
                turned = second * cosine[channel] + first * sine[channel]
                target[half + channel] = rounded(turned)

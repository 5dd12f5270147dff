"""Coefficients in fixed numbers of bits: how many for each, how wide their steps, how packed.

Owns the rate allocation of the ``transform`` codec's fixed levels, and the bits. Each next bit goes
to the coefficient whose error it lowers most (reverse water-filling in whole bits), under the
errors of the best uniform quantisers of Laplace densities with as many levels (the test derives
both tables from the density). Knows neither models nor
entropy coding.
"""

# numba types are unknown to the type checker inside compiled functions
# pyright: reportUnknownParameterType=false, reportMissingParameterType=false
# pyright: reportUntypedFunctionDecorator=false

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from scout_core.codec.compiled import compiled

LARGEST_WIDTH: Final = 8
STEPS: Final = (0.0, 1.4142, 1.0874, 0.7309, 0.4610, 0.2800, 0.1657, 0.0961, 0.0548)
"""Step, in deviations, that is best for each width."""
ERRORS: Final = (1.0, 0.5, 0.1963, 0.0718, 0.0254, 0.0087, 0.0029, 0.00095, 0.0003)
"""Mean square error, in variances, at that step."""


def allocated_widths(deviations: NDArray[np.float32], bits: int) -> NDArray[np.int64]:
    """Bits of each coefficient, at most ``bits`` in all; more for larger deviations."""
    gains = -np.diff(np.array(ERRORS))
    worth = (deviations.astype(np.float64)[:, None] ** 2 * gains).reshape(-1)
    best = np.argsort(-worth, kind="stable")[:bits]
    return np.bincount(best // LARGEST_WIDTH, minlength=deviations.size)


def packed_bytes(widths: NDArray[np.uint8], length: int) -> int:
    """Bytes of rows of ``length`` codes; each row starts at a byte."""
    return int(((widths.astype(np.int64) * length + 7) // 8).sum())


@compiled
def pack_rows(values, steps, widths, packed):
    """Quantises ``[rows, length]`` and packs each row's codes, lowest bits first.

    The code of v is floor(v / step) + 2^(width - 1), cut to the width. False if a value is NaN.
    """
    cursor = 0
    is_number = True
    for row in range(values.shape[0]):
        width = np.int64(widths[row])
        scale = np.float32(1) / steps[row]
        lowest, highest = np.float32(-(1 << (width - 1))), np.float32((1 << (width - 1)) - 1)
        held, bits = np.uint64(0), np.int64(0)
        for index in range(values.shape[1]):
            level = np.floor(np.float32(values[row, index] * scale))
            is_number &= not np.isnan(level)
            level = min(max(level, lowest), highest)
            code = np.uint64(np.int64(level - lowest))
            held |= np.uint64(code << np.uint64(bits))
            bits += width
            while bits >= 8:
                packed[cursor] = np.uint8(held & np.uint64(0xFF))
                cursor += 1
                held >>= np.uint64(8)
                bits -= 8
        if bits > 0:
            packed[cursor] = np.uint8(held & np.uint64(0xFF))
            cursor += 1
    return is_number


@compiled
def unpack_rows(packed, steps, widths, values):
    """Inverse of ``pack_rows``: the middle of each code's interval."""
    cursor = 0
    for row in range(values.shape[0]):
        width = np.int64(widths[row])
        lowest = np.float32(-(1 << (width - 1))) + np.float32(0.5)
        mask = np.uint64((1 << width) - 1)
        held, bits = np.uint64(0), np.int64(0)
        for index in range(values.shape[1]):
            if bits < width:
                held |= np.uint64(np.uint64(packed[cursor]) << np.uint64(bits))
                cursor += 1
                bits += 8
            code = np.float32(np.int64(held & mask))
            held >>= np.uint64(width)
            bits -= width
            values[row, index] = np.float32(code + lowest) * steps[row]

"""Matrix products of 8-bit integers, exact on every host.

Owns the choice of arithmetic: 8-bit dot products where the processor has them (four times the
float32 rate on AVX-512 VNNI), else float32, cut into pieces whose sums stay below 2^24 and are
therefore exact in whatever order a library adds them. Either way every host gets the same integers.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import torch

EXACT_TERMS: Final = 1024
"""1,024 · 128 · 127 is below 2^24: so many products sum exactly in float32."""
LEAST_EXTENT: Final = 2
"""torch 2.13 returns uninitialised numbers for a transposed matrix of one row or column."""


def integer_product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """``left @ right`` as int32, for int8 ``[rows, terms]`` and ``[terms, columns]``.

    ``right`` must not hold -128, and ``terms`` must be at most 2^17.
    """
    if min(*left.shape, *right.shape) >= LEAST_EXTENT and _has_dot_products():
        return _by_dot_products(left, right)
    return by_floats(left, right)


def by_floats(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The product by float32 arithmetic."""
    total = torch.zeros(left.shape[0], right.shape[1], dtype=torch.int32)
    for start in range(0, left.shape[1], EXACT_TERMS):
        piece = slice(start, start + EXACT_TERMS)
        total += (left[:, piece].float() @ right[piece].float()).int()
    return total


def _by_dot_products(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    # the public name of this product is a quantised layer with scales; the operator itself is bare
    operators: Any = torch.ops.aten
    return operators._int_mm(left, right)


@cache
def _has_dot_products() -> bool:
    """Whether 8-bit products are fast here, and exact.

    Without VNNI the library multiplies in 16 bits and may saturate, and elsewhere it may be a plain
    loop, so the operator is only used where it is both.
    """
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    generator = torch.Generator().manual_seed(0)
    left = torch.randint(-128, 128, (64, 257), dtype=torch.int8, generator=generator)
    right = torch.randint(120, 128, (257, 64), dtype=torch.int8, generator=generator)
    return bool((_by_dot_products(left, right) == by_floats(left, right)).all())

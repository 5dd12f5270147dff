"""Whether a bf16 cache holds only finite numbers, at the speed of memory."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from scout_core.codec.compiled import compiled

EXPONENT: Final = np.uint16(0x7F80)
"""All ones in a bf16 that is infinite or no number."""


def is_finite(kv: torch.Tensor) -> bool:
    """For a contiguous bf16 tensor on the CPU."""
    words = kv.reshape(-1).view(torch.int16).numpy().view(np.uint16)
    return int(_largest_exponent(words)) != int(EXPONENT)


@compiled
def _largest_exponent(words: NDArray[np.uint16]) -> np.uint16:
    largest = np.uint16(0)
    for index in range(words.size):
        largest = max(largest, np.uint16(words[index] & EXPONENT))
    return largest

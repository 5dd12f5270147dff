"""bf16 numbers as their 16 bits, inside compiled loops."""

# numba types are unknown to the type checker inside compiled functions
# pyright: reportUnknownParameterType=false, reportMissingParameterType=false
# pyright: reportUntypedFunctionDecorator=false

from __future__ import annotations

import numpy as np

from scout_core.codec.compiled import inlined


@inlined
def widened(bits):
    """A bf16 as float32, exactly."""
    return np.uint32(np.uint32(bits) << np.uint32(16)).view(np.float32)


@inlined
def rounded(value):
    """The bits of the bf16 nearest a finite float32, ties to even."""
    raw = np.float32(value).view(np.uint32)
    return np.uint16(
        np.uint32(raw + np.uint32(0x7FFF) + ((raw >> np.uint32(16)) & np.uint32(1)))
        >> np.uint32(16)
    )

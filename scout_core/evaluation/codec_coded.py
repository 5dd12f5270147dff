"""What the codec study compares, whoever it is from: a name, and a cache in, a cache and bytes out.

Owns the shape of a contender; knows neither which there are nor how they are measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Coded:
    """What one contender made of one cache."""

    decoded: torch.Tensor
    """bf16, the cache's shape."""
    payload_bytes: float
    """Side information counted, unless the contender's name says otherwise."""


@dataclass(frozen=True, slots=True)
class ExactCache:
    """What a contender is given."""

    kv: torch.Tensor
    """bf16 ``[layers, 2, kv_heads, positions, head_dim]``."""
    first: int
    """Absolute position of its first row."""
    attention: NDArray[np.float64] | None = None
    """``[positions]``, for contenders that need it: the squared attention of the context's last
    tokens (``CacheProbe.attention``) or, where there is a question, of its rows."""
    selected: NDArray[np.int64] | None = None
    """Absolute positions of its rows where they are a selection; None: they follow ``first``."""

    @property
    def positions(self) -> Sequence[int]:
        """Absolute positions of its rows, ascending."""
        if self.selected is not None:
            return self.selected.tolist()
        return range(self.first, self.first + self.kv.shape[3])


Code = Callable[[ExactCache], Coded]


@dataclass(frozen=True, slots=True)
class Contender:
    """A named way to send a cache."""

    name: str
    family: str
    """Of its neighbours at other rates: one curve."""
    origin: str
    """``ours`` or ``peer`` (our re-implementation)."""
    code: Code
    needs_attention: bool = False
    """Of its ``ExactCache``."""

"""What the codec study compares, whoever it is from: a name, and a cache in, a cache and bytes out.

Owns the shape of a contender; knows neither which there are nor how they are measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Coded:
    """What one contender made of one cache."""

    decoded: torch.Tensor
    """bf16, the cache's shape."""
    payload_bytes: float
    """Side information counted, unless the contender's name says otherwise."""


Code = Callable[[torch.Tensor, int], Coded]
"""Takes a bf16 cache ``[layers, 2, kv_heads, positions, head_dim]`` and its first row's absolute
position."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A named way to send a cache."""

    name: str
    family: str
    """Of its neighbours at other rates: one curve."""
    origin: str
    """``ours`` or ``peer`` (our re-implementation)."""
    code: Code

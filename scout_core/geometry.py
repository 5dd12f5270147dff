"""The shape of a KV cache and the byte arithmetic that follows from it (DESIGN §2).

Layout everywhere: ``[layers, 2, kv_heads, positions, head_dim]``; index 0 of the second axis is
keys, index 1 values. This module knows shapes only, no tensors.
"""

from __future__ import annotations

from dataclasses import dataclass

from scout_core.errors import CodecError

BF16_BYTES = 2
MAX_LAYERS = 512
MAX_KV_HEADS = 512
MAX_HEAD_DIM = 1024


@dataclass(frozen=True, slots=True)
class KvGeometry:
    """Shape of one model's KV cache, per position.

    Raises:
        CodecError: a dimension is not positive or beyond what any model has.
    """

    layers: int
    kv_heads: int
    head_dim: int

    def __post_init__(self) -> None:
        for name, value, limit in (
            ("layers", self.layers, MAX_LAYERS),
            ("kv_heads", self.kv_heads, MAX_KV_HEADS),
            ("head_dim", self.head_dim, MAX_HEAD_DIM),
        ):
            if not 1 <= value <= limit:
                raise CodecError(f"KV geometry: {name} must be in 1..{limit}, got {value}.")

    @property
    def elements_per_token(self) -> int:
        return self.layers * 2 * self.kv_heads * self.head_dim

    @property
    def bf16_bytes_per_token(self) -> int:
        return self.elements_per_token * BF16_BYTES

    def shape(self, positions: int) -> tuple[int, int, int, int, int]:
        """``[layers, 2, kv_heads, positions, head_dim]``."""
        return (self.layers, 2, self.kv_heads, positions, self.head_dim)

    def bf16_bytes(self, positions: int) -> int:
        """Bytes of the raw bf16 cache of ``positions`` tokens."""
        return positions * self.bf16_bytes_per_token

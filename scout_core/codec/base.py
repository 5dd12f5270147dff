"""What every KV codec promises.

Owns the interface and the checks that all codecs share; knows no format. A codec turns the cache
of a block of positions into bytes and back. Shape and position count travel outside the payload
(block header, model geometry), so a payload is meaningful only together with them.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, Protocol

import torch

from scout_core.errors import CodecError
from scout_core.geometry import KvGeometry

MAX_BLOCK_POSITIONS: Final = 1 << 16
"""Most positions in one payload: bounds what a decoder allocates on a stranger's word."""


class CodecId(IntEnum):
    """The codec byte of a KV block's header. Numbers are never reused."""

    RAW_BF16 = 1
    INT8_GROUPS = 2
    INT4_GROUPS = 3
    LOSSLESS_BF16 = 4
    TRANSFORM = 5
    EMBEDDED_BF16 = 6


class KvCodec(Protocol):
    """One way to write a KV cache as bytes.

    Implementations are stateless or immutable, and safe to use from several threads.
    """

    @property
    def name(self) -> str:
        """The name people type: ``int4_groups``."""
        ...

    @property
    def codec_id(self) -> CodecId:
        """The byte that names the codec on the wire."""
        ...

    @property
    def is_fixed_rate(self) -> bool:
        """Whether ``encoded_bytes`` is exact for every input; else it is an expectation."""
        ...

    def encode(self, kv: torch.Tensor) -> bytes:
        """Codes a cache ``[layers, 2, kv_heads, positions, head_dim]``, bf16 or float32, on CPU.

        Float32 is rounded to bf16 first. The input is not modified.

        Raises:
            CodecError: wrong rank, dtype or device, no positions, NaN or infinity.
        """
        ...

    def decode(
        self, payload: bytes | memoryview, geometry: KvGeometry, positions: int
    ) -> torch.Tensor:
        """The cache in ``payload``: a fresh bf16 CPU tensor of ``geometry.shape(positions)``.

        Raises:
            CodecError: the payload is no encoding of such a cache, or holds NaN or infinity.
        """
        ...

    def encoded_bytes(self, geometry: KvGeometry, positions: int) -> int:
        """Payload bytes of ``positions`` positions: exact if ``is_fixed_rate``.

        Raises:
            CodecError: positions out of range.
        """
        ...


def checked_kv(kv: torch.Tensor) -> torch.Tensor:
    """The encoder's input as a contiguous bf16 tensor (a copy only if it was not one).

    Raises:
        CodecError: see ``KvCodec.encode``; NaN and infinity are the codec's to find.
    """
    if kv.ndim != 5 or kv.shape[1] != 2:
        raise CodecError(
            f"KV must be [layers, 2, kv_heads, positions, head_dim], got shape {tuple(kv.shape)}.",
        )
    if kv.dtype not in (torch.bfloat16, torch.float32):
        raise CodecError(f"KV must be bfloat16 or float32, got {kv.dtype}.")
    if kv.device.type != "cpu":
        raise CodecError(f"KV must be on the CPU, got {kv.device}; move it first.")
    check_positions(kv.shape[3])
    geometry_of(kv)
    return kv.detach().to(torch.bfloat16).contiguous()


def geometry_of(kv: torch.Tensor) -> KvGeometry:
    """The geometry of ``[layers, 2, kv_heads, positions, head_dim]``."""
    return KvGeometry(layers=kv.shape[0], kv_heads=kv.shape[2], head_dim=kv.shape[4])


def check_positions(positions: int) -> None:
    """Raises CodecError unless ``positions`` fits one payload."""
    if not 1 <= positions <= MAX_BLOCK_POSITIONS:
        raise CodecError(
            f"A KV payload holds 1..{MAX_BLOCK_POSITIONS} positions, got {positions}.",
        )


def check_payload_bytes(codec: KvCodec, actual: int, geometry: KvGeometry, positions: int) -> None:
    """Raises CodecError unless a fixed-rate payload has exactly its size."""
    expected = codec.encoded_bytes(geometry, positions)
    if actual != expected:
        raise CodecError(
            f"{codec.name}: {positions} positions take {expected} bytes, got {actual}; "
            "geometry and codec must be those of the sender.",
            expected_bytes=expected,
            actual_bytes=actual,
        )


def not_finite(name: str) -> CodecError:
    """The error for NaN or infinity in a cache."""
    return CodecError(f"{name}: the KV cache holds NaN or infinity; the sender's prefill failed.")

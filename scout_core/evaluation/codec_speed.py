"""How fast codecs run on this host's cores, beside a memory copy.

Owns the measurement behind ``scout bench codec``'s ``speed`` rows: GB/s of bf16 cache, best of
several runs (a busy host only slows runs down), with the copy measured in between.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch

from scout_core.codec.base import KvCodec, geometry_of
from scout_core.codec.compiled import default_threads

RUNS: Final = 7


@dataclass(frozen=True, slots=True)
class SpeedRow:
    """One codec on one cache; GB/s (10⁹ bytes) of bf16 input."""

    codec: str
    device: str
    threads: int
    input_bytes: int
    encode_gb_s: float
    decode_gb_s: float
    copy_gb_s: float


def speed_rows(kv: torch.Tensor, codecs: Sequence[KvCodec]) -> Iterator[SpeedRow]:
    """Times encode and decode of a bf16 cache on the CPU, with the threads codecs use."""
    geometry, positions = geometry_of(kv), kv.shape[3]
    for codec in codecs:
        payload = codec.encode(kv)
        encode_s = _best_s(lambda codec=codec: codec.encode(kv))
        copy_s = _best_s(kv.clone)
        decode_s = _best_s(
            lambda codec=codec, payload=payload: codec.decode(payload, geometry, positions)
        )
        yield SpeedRow(
            codec=codec.name,
            device="cpu",
            threads=default_threads(),
            input_bytes=kv.nbytes,
            encode_gb_s=kv.nbytes / encode_s / 1e9,
            decode_gb_s=kv.nbytes / decode_s / 1e9,
            copy_gb_s=kv.nbytes / copy_s / 1e9,
        )


def _best_s(work: Callable[[], object]) -> float:
    times: list[float] = []
    for _ in range(RUNS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)

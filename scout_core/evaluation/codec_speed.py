"""How fast codecs run on this host's cores, beside a memory copy.

Owns the measurement behind ``scout bench codec``'s ``speed`` rows: GB/s of bf16 cache, best of up
to nine runs (a busy host only slows runs down), on one core and on all that the process may use. A
memory copy with as many threads is measured between encoding and decoding.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from scout_core.codec.base import KvCodec, geometry_of
from scout_core.codec.compiled import at_most_threads, cores, run_sliced

RUNS: Final = 9
ENOUGH_S: Final = 1.5
"""After so long a figure is taken from the runs so far: slow codecs and busy hosts get fewer."""
BITS: Final = 8


@dataclass(frozen=True, slots=True)
class SpeedRow:
    """One codec on one cache; GB/s (10⁹ bytes) of bf16 input."""

    codec: str
    device: str
    threads: int
    context_tokens: int
    input_bytes: int
    ratio: float
    """Of input to payload bytes."""
    encode_gb_s: float
    decode_gb_s: float
    copy_gb_s: float
    """Bytes copied, counted once, into memory that is already there."""
    pays_below_gbit_s: float
    """Encoding, sending and decoding one after the other beat sending bf16 on slower links."""


def speed_rows(kv: torch.Tensor, codecs: Sequence[KvCodec]) -> Iterator[SpeedRow]:
    """Times encode and decode of a bf16 cache on the CPU."""
    for codec in codecs:
        for threads in sorted({1, cores()}):
            with at_most_threads(threads):
                yield _measured(kv, codec, threads)


def _measured(kv: torch.Tensor, codec: KvCodec, threads: int) -> SpeedRow:
    geometry, positions = geometry_of(kv), kv.shape[3]
    payload = codec.encode(kv)
    encode_s = _best_s(lambda: codec.encode(kv))
    copy_s = _best_s(_copying(kv, threads))
    decode_s = _best_s(lambda: codec.decode(payload, geometry, positions))
    ratio = kv.nbytes / len(payload)
    saved_bytes = kv.nbytes - len(payload)
    return SpeedRow(
        codec=codec.name,
        device="cpu",
        threads=threads,
        context_tokens=positions,
        input_bytes=kv.nbytes,
        ratio=ratio,
        encode_gb_s=kv.nbytes / encode_s / 1e9,
        decode_gb_s=kv.nbytes / decode_s / 1e9,
        copy_gb_s=kv.nbytes / copy_s / 1e9,
        pays_below_gbit_s=max(0.0, BITS * saved_bytes / (encode_s + decode_s) / 1e9),
    )


def _copying(kv: torch.Tensor, threads: int) -> Callable[[], object]:
    """Copies the cache's bytes, a slice per thread."""
    source = kv.reshape(-1).view(torch.int16).numpy()
    target = np.zeros_like(source)

    def copy_slice(first: int, last: int) -> bool:
        np.copyto(target[first:last], source[first:last])
        return True

    return lambda: run_sliced(copy_slice, source.size, source.nbytes, threads)


def _best_s(work: Callable[[], object]) -> float:
    times: list[float] = []
    for _ in range(RUNS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
        if sum(times) > ENOUGH_S:
            break
    return min(times)

"""Feeds damaged payloads to every decoder.

``python -m tests.bench.bench_codec_fuzz --inputs 1000000``, or ``make fuzz``; ``--decoder`` picks
some, and other ``--seed`` values other inputs, so that a long run can be cut into pieces.

Inputs are mutated valid payloads, not guided by coverage: the decoders' loops are compiled, where
a coverage-guided fuzzer sees nothing.

An input passes when the decoder returns something valid or raises PayloadError; anything else (an
exception of another kind, a cache with NaN, positions out of order) is printed with its payload in
hex, and fails the run. The unit tests run the same with fewer inputs.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle

import numpy as np
import torch

from scout_core.codec.base import KvCodec
from scout_core.codec.embedded_bf16 import EMBEDDED_BF16, refinement
from scout_core.codec.groups import INT4_GROUPS, INT8_GROUPS
from scout_core.codec.positions import decode_positions, encode_positions
from scout_core.codec.registry import CODECS
from scout_core.codec.tokens import decode_tokens, encode_tokens
from scout_core.codec.transform import TransformCodec
from scout_core.codec.transform_basis import TransformBasis
from scout_core.errors import PayloadError
from scout_core.evaluation.codec_fit import fit_basis
from scout_core.evaluation.codec_statistics import CacheStatistics
from scout_core.geometry import KvGeometry
from scout_core.modes import ModelFingerprint

GEOMETRY = KvGeometry(layers=1, kv_heads=1, head_dim=4)
COMPILED_GEOMETRY = KvGeometry(layers=1, kv_heads=1, head_dim=64)
"""Of caches whose groups go through the compiled kernels; smaller ones through the reference."""
POSITIONS = 3
UNIVERSE, KEPT = 90, 30
VOCABULARY, TOKENS = 49_152, 12
TRANSFORMS = (
    ("transform", 6, None),
    ("transform_graded", 6, (-8, 2, 7)),
    ("transform_fixed", 56, None),
)


@dataclass(frozen=True, slots=True)
class Target:
    """A decoder, valid payloads to start from, and a check of what it returns."""

    name: str
    seeds: tuple[bytes, ...]
    decodes_validly: Callable[[bytes], bool]


def targets() -> Iterator[Target]:
    """Every decoder that reads a stranger's bytes."""
    source = np.random.default_rng(0)
    caches = random_caches(source, GEOMETRY)
    for codec in CODECS:
        yield Target(codec.name, tuple(map(codec.encode, caches)), finite_with(codec, GEOMETRY))
    wide = random_caches(source, COMPILED_GEOMETRY)
    for codec in (INT8_GROUPS, INT4_GROUPS):
        seeds = tuple(map(codec.encode, wide))
        yield Target(f"{codec.name}_compiled", seeds, finite_with(codec, COMPILED_GEOMETRY))
    held = [INT4_GROUPS.encode(cache) for cache in wide]
    for higher in (INT8_GROUPS, EMBEDDED_BF16):
        seeds = tuple(refinement(cache, INT4_GROUPS, higher) for cache in wide)
        yield Target(f"{higher.name}_refinement", seeds, _finite_over(higher, held))
    for name, level, grades in TRANSFORMS:
        transform = TransformCodec.at(random_basis(), level, range(POSITIONS), grades)
        seeds = tuple(map(transform.encode, caches[:2]))
        yield Target(name, seeds, finite_with(transform, GEOMETRY))

    def is_sorted(payload: bytes) -> bool:
        found = decode_positions(payload, UNIVERSE, KEPT)
        ordered = bool((found[1:] > found[:-1]).all())
        return ordered and found.size == KEPT and found[0] >= 0 and found[-1] < UNIVERSE

    scattered = sorted(source.choice(UNIVERSE, KEPT, replace=False).tolist())
    yield Target(
        "positions",
        (encode_positions(scattered, UNIVERSE), encode_positions(range(KEPT), UNIVERSE)),
        is_sorted,
    )

    def is_in_vocabulary(payload: bytes) -> bool:
        found = decode_tokens(payload, VOCABULARY, TOKENS)
        return found.size == TOKENS and bool(((found >= 0) & (found < VOCABULARY)).all())

    ids = source.integers(0, VOCABULARY, TOKENS)
    yield Target("tokens", (encode_tokens(ids, VOCABULARY),), is_in_vocabulary)


def random_caches(source: np.random.Generator, geometry: KvGeometry) -> list[torch.Tensor]:
    """Small, usual and large elements."""
    return [
        torch.from_numpy(source.standard_normal(geometry.shape(POSITIONS)) * scale)
        .float()
        .to(torch.bfloat16)
        for scale in (0.01, 1.0, 1e30)
    ]


def finite_with(codec: KvCodec, geometry: KvGeometry) -> Callable[[bytes], bool]:
    """Whether a payload decodes to a cache without NaN and infinity."""

    def is_finite(payload: bytes) -> bool:
        decoded = codec.decode(payload, geometry, POSITIONS)
        return bool(torch.isfinite(decoded.float()).all())

    return is_finite


def _finite_over(higher: KvCodec, held: list[bytes]) -> Callable[[bytes], bool]:
    """The same for a refinement of any of the payloads held; all but one are another cache's."""
    finite = finite_with(higher, COMPILED_GEOMETRY)
    turn = cycle(held)
    return lambda rest: finite(next(turn) + rest)


def random_basis() -> TransformBasis:
    """A transform basis of the fuzzed geometry, fitted to noise."""
    statistics = CacheStatistics(GEOMETRY, groups=1, sink_positions=4)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2, 1, 200, 4, generator=generator)
    statistics.add_rows(rows)
    statistics.add_gradients(torch.randn(rows.shape, generator=generator), 0.01)
    return fit_basis(ModelFingerprint("noise"), statistics, 10_000.0, [rows])


def damaged(source: random.Random, seed: bytes) -> bytes:
    """A payload with bytes changed, removed, repeated or appended, or one of noise."""
    payload = bytearray(seed)
    for _ in range(source.randint(1, 4)):
        kind = source.randrange(5)
        if kind == 0 or not payload:
            payload += source.randbytes(source.randint(1, 8))
        elif kind == 1:
            del payload[source.randrange(len(payload)) :]
        elif kind == 2:
            payload[source.randrange(len(payload))] ^= 1 << source.randrange(8)
        elif kind == 3:
            payload[source.randrange(len(payload))] = source.choice((0, 1, 127, 128, 254, 255))
        else:
            start = source.randrange(len(payload))
            payload[start : start + source.randint(0, 6)] = source.randbytes(source.randint(0, 6))
    return bytes(payload) if source.random() < 0.95 else source.randbytes(len(seed))


def failures(target: Target, inputs: int, seed: int) -> Iterator[tuple[bytes, str]]:
    """The payloads that a decoder did not handle, each with what happened."""
    source = random.Random(seed)
    for _ in range(inputs):
        payload = damaged(source, source.choice(target.seeds))
        try:
            if not target.decodes_validly(payload):
                yield payload, "returned something invalid"
        except PayloadError:
            continue
        except Exception as error:  # noqa: BLE001 - finding any other kind is the purpose
            yield payload, repr(error)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="per decoder")
    parser.add_argument("--seed", type=int, default=0)
    known = {target.name: target for target in targets()}
    parser.add_argument("--decoder", action="append", choices=sorted(known), help="may be repeated")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    failed = 0
    for target in [known[name] for name in arguments.decoder or known]:
        started = time.monotonic()
        for payload, what in failures(target, arguments.inputs, arguments.seed):
            failed += 1
            print(f"{target.name}: {what}: {payload.hex()}")
        elapsed_s = time.monotonic() - started
        print(f"{target.name}: {arguments.inputs:,} inputs in {elapsed_s:.0f} s", flush=True)
    print(f"{failed} failures")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""Each peer of the codec study: more bits, less error; its bytes are what crosses the link."""

from __future__ import annotations

import zlib

import pytest
import torch
import zstandard
from numpy import array, float64

from scout_core.codec.base import geometry_of
from scout_core.evaluation.codec_coded import Contender, ExactCache
from scout_core.evaluation.codec_kvtc import (
    RAW_FIRST,
    RAW_LAST,
    KvtcLike,
    PrincipalComponents,
)
from scout_core.evaluation.codec_kvtc_plan import Run, planned
from scout_core.evaluation.codec_peers import peers
from scout_core.evaluation.codec_zstd import ZSTD_LEVEL, zstd_peers
from tests.support.synthetic_caches import GEOMETRY, synthetic_basis, synthetic_cache

FIRST = 7
POSITIONS = 200
KV = synthetic_cache(range(FIRST, FIRST + POSITIONS), seed=50)
COMPONENTS = PrincipalComponents(synthetic_basis())


def kvtc(bits: float, raw_last: int = 0) -> KvtcLike:
    return KvtcLike(COMPONENTS, bits, raw_last)


def error(decoded: torch.Tensor, kv: torch.Tensor = KV) -> float:
    return float((decoded.float() - kv.float()).norm() / kv.float().norm())


def named(name: str) -> Contender:
    return next(peer for peer in (*peers(), *zstd_peers()) if peer.name == name)


@pytest.mark.parametrize(
    ("finer", "coarser"),
    [
        ("plain_int8", "plain_int4"),
        ("kivi_like_int4", "kivi_like_int2"),
        ("cachegen_like_0.25", "cachegen_like_0.5"),
        ("cachegen_like_0.5", "cachegen_like_1"),
    ],
)
def test_a_peer_errs_less_with_more_bits(finer: str, coarser: str) -> None:
    fine, coarse = (
        named(finer).code(ExactCache(KV, FIRST)),
        named(coarser).code(ExactCache(KV, FIRST)),
    )
    assert fine.payload_bytes > coarse.payload_bytes
    assert error(fine.decoded) < error(coarse.decoded)


def test_the_kivi_like_peer_keeps_its_last_positions_and_pays_for_them() -> None:
    kv = KV[:, :, :, :32]
    coded = named("kivi_like_int2").code(ExactCache(kv, FIRST))
    assert torch.equal(coded.decoded, kv)
    assert coded.payload_bytes == kv.nbytes


@pytest.mark.parametrize("name", ["zstd_bf16", "zstd_split_bf16"])
def test_zstd_returns_every_bit(name: str) -> None:
    coded = named(name).code(ExactCache(KV, FIRST))
    assert torch.equal(coded.decoded.view(torch.int16), KV.view(torch.int16))
    assert coded.payload_bytes < KV.nbytes


def test_zstd_bytes_are_those_of_one_frame() -> None:
    raw = KV.contiguous().view(torch.int16).numpy().tobytes()
    frame = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(raw)
    assert named("zstd_bf16").code(ExactCache(KV, FIRST)).payload_bytes == len(frame)


def test_splitting_exponents_off_helps_zstd() -> None:
    split = named("zstd_split_bf16").code(ExactCache(KV, FIRST)).payload_bytes
    assert split < named("zstd_bf16").code(ExactCache(KV, FIRST)).payload_bytes


def test_the_kvtc_like_peer_errs_less_with_more_bits() -> None:
    sizes: list[int] = []
    errors: list[float] = []
    for bits in (2.0, 3.0, 5.0, 8.0):
        payload = kvtc(bits).encode(KV, FIRST)
        sizes.append(len(payload))
        errors.append(error(kvtc(bits).decode(payload, GEOMETRY, POSITIONS, FIRST)))
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)
    assert errors[0] < 0.5
    assert errors[-1] < 0.05


def test_the_kvtc_like_peer_finds_the_causes_that_keys_share_before_rotation() -> None:
    elsewhere = kvtc(3.0).encode(KV, FIRST + 500)
    misplaced = kvtc(3.0).decode(elsewhere, GEOMETRY, POSITIONS, FIRST + 500)
    placed = kvtc(3.0).decode(kvtc(3.0).encode(KV, FIRST), GEOMETRY, POSITIONS, FIRST)
    assert error(placed) < error(misplaced)


def test_the_kvtc_like_peer_leaves_sinks_and_window_as_they_are_and_counts_them() -> None:
    kv = synthetic_cache(range(POSITIONS), seed=51)
    coder = kvtc(3.0, RAW_LAST)
    payload = coder.encode(kv, 0)
    decoded = coder.decode(payload, GEOMETRY, POSITIONS, 0)
    raw = [*range(RAW_FIRST), *range(POSITIONS - RAW_LAST, POSITIONS)]
    assert torch.equal(decoded[:, :, :, raw], kv[:, :, :, raw])
    assert not torch.equal(decoded, kv)
    raw_bytes = GEOMETRY.bf16_bytes_per_token * len(raw)
    inflated = zlib.decompress(payload[raw_bytes:])
    coded_positions = POSITIONS - len(raw)
    assert len(inflated) * 8 <= 3.0 * GEOMETRY.elements_per_token * coded_positions


def test_the_kvtc_like_peer_sends_a_cache_within_its_window_as_it_is() -> None:
    kv = KV[:, :, :, :RAW_LAST].contiguous()
    payload = kvtc(3.0, RAW_LAST).encode(kv, FIRST)
    assert len(payload) == kv.nbytes
    decoded = kvtc(3.0, RAW_LAST).decode(payload, geometry_of(kv), RAW_LAST, FIRST)
    assert torch.equal(decoded, kv)


def test_components_are_orthonormal_and_ordered() -> None:
    columns = COMPONENTS.columns
    identity = torch.eye(columns.shape[-1]).expand_as(columns)
    assert torch.allclose(columns.transpose(2, 3) @ columns, identity, atol=1e-4)
    plan = COMPONENTS.plan(3.0)
    assert len(plan) == 2 * synthetic_basis().groups


@pytest.mark.parametrize("budget", [1.5, 3.0, 6.0])
def test_a_plan_stays_within_its_budget_and_spends_most_of_it(budget: float) -> None:
    deviations = array([[2.0 ** (-index / 6) for index in range(96)]] * 2, dtype=float64)
    plan = planned(deviations, budget)
    spent = sum(run.position_bits for runs in plan for run in runs)
    assert 0.7 * budget * deviations.size < spent <= budget * deviations.size


def test_a_plan_gives_components_that_vary_more_no_fewer_bits() -> None:
    deviations = array([[10.0] * 32 + [1.0] * 32 + [1e-3] * 32], dtype=float64)
    (runs,) = planned(deviations, 2.5)
    widths = [
        sum(run.bits for run in runs if run.start <= index < run.start + run.size)
        for index in (0, 40, 90)
    ]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > widths[2]
    assert all(isinstance(run, Run) for run in runs)

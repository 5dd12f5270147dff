"""KV codecs: what each promises of any cache, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scout_core.codec.base import MAX_BLOCK_POSITIONS, KvCodec, geometry_of
from scout_core.codec.registry import CODECS, codec_by_id, codec_by_name, codec_for_mode
from scout_core.errors import CodecError, ModeUnavailableError
from scout_core.geometry import KvGeometry
from scout_core.modes import Mode

by_name = pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)


def random_kv(geometry: KvGeometry, positions: int, seed: int = 0) -> torch.Tensor:
    """A cache with channel offsets and outliers, as real keys have."""
    generator = torch.Generator().manual_seed(seed)
    kv = torch.randn(geometry.shape(positions), generator=generator)
    offsets = 4 * torch.randn((*geometry.shape(1)[:4], geometry.head_dim), generator=generator)
    return (kv + offsets).to(torch.bfloat16)


GEOMETRY = KvGeometry(layers=3, kv_heads=2, head_dim=64)


@by_name
@pytest.mark.parametrize("positions", [1, 2, 31, 32, 33, 70])
@pytest.mark.parametrize("head_dim", [2, 24, 64, 80, 128])
def test_sizes_are_exact_and_errors_bounded(codec: KvCodec, positions: int, head_dim: int) -> None:
    geometry = KvGeometry(layers=2, kv_heads=3, head_dim=head_dim)
    kv = random_kv(geometry, positions)
    payload = codec.encode(kv)
    if codec.is_fixed_rate:
        assert len(payload) == codec.encoded_bytes(geometry, positions)
    decoded = codec.decode(payload, geometry, positions)
    assert decoded.dtype == torch.bfloat16
    assert decoded.shape == kv.shape
    spread = float(kv.float().max() - kv.float().min())
    step = {"int8_groups": spread / 240, "int4_groups": spread / 15}.get(codec.name, 0.0)
    rounding = float(kv.float().abs().max()) * 2**-8  # of the result to bf16
    error = float((decoded.float() - kv.float()).abs().max())
    assert error <= 0.55 * step + (rounding if step else 0.0)


@given(st.binary(min_size=2 * 2 * 3 * 4 * 2, max_size=2 * 2 * 3 * 4 * 2))
def test_raw_is_bit_exact_or_refuses_nonfinite_elements(raw: bytes) -> None:
    geometry = KvGeometry(layers=1, kv_heads=2, head_dim=4)
    words = np.frombuffer(raw, dtype=np.uint16)
    finite = bool(((words & 0x7F80) != 0x7F80).all())
    codec = codec_by_name("raw_bf16")
    if not finite:
        with pytest.raises(CodecError):
            codec.decode(raw, geometry, 3)
        return
    kv = codec.decode(raw, geometry, 3)
    assert codec.encode(kv) == raw


@by_name
def test_float32_input_is_rounded_to_bf16_first(codec: KvCodec) -> None:
    kv = random_kv(GEOMETRY, 40).float() * 1.001
    assert codec.encode(kv) == codec.encode(kv.to(torch.bfloat16))


@by_name
def test_strided_input_is_coded_as_its_contiguous_copy(codec: KvCodec) -> None:
    kv = random_kv(GEOMETRY, 80)
    part = kv[:, :, :, 7:70:3]
    assert codec.encode(part) == codec.encode(part.contiguous())


@by_name
def test_gathered_positions_survive_like_any_others(codec: KvCodec) -> None:
    kv = random_kv(GEOMETRY, 80)[:, :, :, torch.tensor([1, 5, 6, 40, 79])]
    decoded = codec.decode(codec.encode(kv), GEOMETRY, 5)
    assert torch.allclose(decoded.float(), kv.float(), atol=1.0)


@by_name
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("kind", [0, 1])
def test_nonfinite_input_is_refused(codec: KvCodec, bad: float, kind: int) -> None:
    kv = random_kv(GEOMETRY, 33)
    kv[1, kind, 1, 32, 63] = bad
    with pytest.raises(CodecError):
        codec.encode(kv)


@by_name
@pytest.mark.parametrize("value", [0.0, -0.0, 1e-40, -3.5, 6e37])
def test_constant_caches_survive_exactly(codec: KvCodec, value: float) -> None:
    kv = torch.full(GEOMETRY.shape(20), value, dtype=torch.bfloat16)
    assert torch.equal(codec.decode(codec.encode(kv), GEOMETRY, 20), kv)


@by_name
def test_improper_tensors_are_refused(codec: KvCodec) -> None:
    for kv in (
        torch.zeros(3, 2, 2, 4),
        torch.zeros(3, 1, 2, 4, 8),
        torch.zeros(3, 2, 2, 0, 8),
        torch.zeros(3, 2, 2, 4, 8, dtype=torch.float16),
        torch.zeros(3, 2, 2, 4, 8, device="meta", dtype=torch.bfloat16),
    ):
        with pytest.raises(CodecError):
            codec.encode(kv)


@by_name
def test_wrong_sizes_are_refused_before_allocation(codec: KvCodec) -> None:
    payload = codec.encode(random_kv(GEOMETRY, 9))
    for damaged in (payload[:-1], payload + b"\0", b""):
        with pytest.raises(CodecError):
            codec.decode(damaged, GEOMETRY, 9)
    for positions in (0, -1, 10, MAX_BLOCK_POSITIONS + 1, 1 << 60):
        with pytest.raises(CodecError):
            codec.decode(payload, GEOMETRY, positions)


@by_name
@settings(max_examples=200)
@given(st.data())
def test_damaged_payloads_decode_to_finite_caches_or_are_refused(
    codec: KvCodec, data: st.DataObject
) -> None:
    geometry = KvGeometry(layers=1, kv_heads=1, head_dim=8)
    payload = bytearray(codec.encode(random_kv(geometry, 5)))
    for _ in range(data.draw(st.integers(1, 8))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = codec.decode(bytes(payload), geometry, 5)
    except CodecError:
        return
    assert torch.isfinite(decoded.float()).all()


def test_lossless_keeps_every_bit_of_any_finite_cache() -> None:
    codec = codec_by_name("lossless_bf16")
    source = np.random.default_rng(0)
    bits = source.integers(0, 1 << 16, GEOMETRY.shape(9), dtype=np.uint16)
    bits[(bits & 0x7F80) == 0x7F80] &= 0x807F
    kv = torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16)
    decoded = codec.decode(codec.encode(kv), GEOMETRY, 9)
    assert torch.equal(decoded.view(torch.int16), kv.view(torch.int16))


def test_lossless_saves_a_quarter_of_gaussian_caches() -> None:
    kv = random_kv(GEOMETRY, 300)
    codec = codec_by_name("lossless_bf16")
    payload = codec.encode(kv)
    assert len(payload) < 0.75 * GEOMETRY.bf16_bytes(300)
    for cut in range(0, len(payload), 997):
        with pytest.raises(CodecError):
            codec.decode(payload[:cut], GEOMETRY, 300)


def test_int8_is_int4_plus_a_refinement() -> None:
    kv = random_kv(GEOMETRY, 70)
    coarse = codec_by_name("int4_groups").encode(kv)
    full = codec_by_name("int8_groups").encode(kv)
    assert full[: len(coarse)] == coarse


def test_ids_and_names_find_their_codec() -> None:
    for codec in CODECS:
        assert codec_by_id(codec.codec_id) is codec
        assert codec_by_name(codec.name) is codec
    assert len({codec.codec_id for codec in CODECS}) == len(CODECS)
    with pytest.raises(CodecError):
        codec_by_id(0)
    with pytest.raises(CodecError):
        codec_by_name("int3_dreams")


def test_every_kv_mode_has_a_codec_and_scout_has_none() -> None:
    assert codec_for_mode(Mode.KV_BF16).name == "raw_bf16"
    assert codec_for_mode(Mode.KV_INT8).name == "int8_groups"
    assert codec_for_mode(Mode.KV_INT4).name == "int4_groups"
    assert codec_for_mode(Mode.KV_SELECT, selected="int4_groups").name == "int4_groups"
    with pytest.raises(ModeUnavailableError):
        codec_for_mode(Mode.SCOUT)


def test_geometry_is_read_from_the_layout() -> None:
    assert geometry_of(torch.zeros(GEOMETRY.shape(3))) == GEOMETRY

"""The transform codec on a synthetic model: rate against error, positions, refusals, artefact."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scout_core.codec import integer_product
from scout_core.codec.compiled import at_most_threads
from scout_core.codec.registry import codec_by_name
from scout_core.codec.rotary import Rotation
from scout_core.codec.transform import TransformCodec, expected_bytes
from scout_core.codec.transform_basis import TransformBasis
from scout_core.codec.transform_payload import LEVELS
from scout_core.errors import CodecError, ProfileError
from scout_core.geometry import KvGeometry
from tests.support.synthetic_caches import (
    GEOMETRY,
    THETA,
    synthetic_basis,
    synthetic_cache,
)

BASIS = synthetic_basis()


def relative_error(kv: torch.Tensor, decoded: torch.Tensor) -> float:
    return float((decoded.float() - kv.float()).norm() / kv.float().norm())


def test_coarser_levels_cost_fewer_bytes_and_more_error() -> None:
    kv = synthetic_cache(range(80), 50)
    sizes: list[int] = []
    errors: list[float] = []
    for level in (0, 8, 16, 24):
        codec = TransformCodec.at(BASIS, level, range(80))
        payload = codec.encode(kv)
        sizes.append(len(payload))
        errors.append(relative_error(kv, codec.decode(payload, GEOMETRY, 80)))
    assert sizes == sorted(sizes, reverse=True)
    assert errors == sorted(errors)
    assert errors[0] < 0.02


def test_at_equal_error_it_is_far_smaller_than_int8_groups() -> None:
    kv = synthetic_cache(range(200), 51)
    groups = codec_by_name("int8_groups")
    codec = TransformCodec.at(BASIS, 4, range(200))
    payload = codec.encode(kv)
    assert relative_error(kv, codec.decode(payload, GEOMETRY, 200)) < 0.02
    assert 2 * len(payload) < len(groups.encode(kv))


def test_gathered_positions_are_coded_at_their_own_rotation() -> None:
    positions = [0, 1, 5, 40, 41, 99]
    kv = synthetic_cache(positions, 52)
    right = TransformCodec.at(BASIS, 4, positions)
    wrong = TransformCodec.at(BASIS, 4, range(6))
    assert relative_error(kv, right.decode(right.encode(kv), GEOMETRY, 6)) < 0.05
    assert len(right.encode(kv)) < len(wrong.encode(kv))


def test_blocks_decode_wherever_they_start() -> None:
    kv = synthetic_cache(range(100), 53)
    whole = TransformCodec.at(BASIS, 4, range(100))
    decoded = whole.decode(whole.encode(kv), GEOMETRY, 100)
    part = TransformCodec.at(BASIS, 4, range(64, 100))
    tail = part.decode(part.encode(kv[:, :, :, 64:]), GEOMETRY, 36)
    assert relative_error(decoded[:, :, :, 64:], tail) < 0.01


def test_the_payload_says_its_level() -> None:
    kv = synthetic_cache(range(30), 54)
    coarse, fine = (TransformCodec.at(BASIS, level, range(30)) for level in (16, 0))
    payload = coarse.encode(kv)
    assert torch.equal(fine.decode(payload, GEOMETRY, 30), coarse.decode(payload, GEOMETRY, 30))


@pytest.mark.parametrize("positions", [1, 7, 256, 300, 513])
def test_hosts_without_integer_products_decode_the_same_bits(
    positions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kv = synthetic_cache(range(4, 4 + positions), 61)
    kv[1, 1, 0, positions // 2] = 300.0
    codec = TransformCodec.at(BASIS, 0, range(4, 4 + positions))
    payload = codec.encode(kv)
    decoded = codec.decode(payload, GEOMETRY, positions)
    assert relative_error(kv, decoded) < 0.2
    monkeypatch.setattr(integer_product, "_has_dot_products", lambda: False)
    assert torch.equal(codec.decode(payload, GEOMETRY, positions), decoded)


def test_threads_do_not_change_a_bit() -> None:
    kv = synthetic_cache(range(300), 62)
    codec = TransformCodec.at(BASIS, 10, range(300))
    payload = codec.encode(kv)
    with at_most_threads(1):
        assert codec.encode(kv) == payload
        alone = codec.decode(payload, GEOMETRY, 300)
    assert torch.equal(codec.decode(payload, GEOMETRY, 300), alone)


def test_fixed_levels_take_the_bits_they_say_and_more_bits_lessen_the_error() -> None:
    positions = range(4, 260)
    kv = synthetic_cache(positions, 63)
    errors: list[float] = []
    for eighths in (8, 16, 24, 32):
        codec = TransformCodec.at(BASIS, 31 + eighths, positions)
        payload = codec.encode(kv)
        assert len(payload) <= kv.numel() * eighths / 64 + 200
        errors.append(relative_error(kv, codec.decode(payload, GEOMETRY, len(positions))))
        for damaged in (payload[:-1], payload + b"\0"):
            with pytest.raises(CodecError):
                codec.decode(damaged, GEOMETRY, len(positions))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.05


def test_outliers_survive_as_escapes() -> None:
    kv = synthetic_cache(range(40), 55)
    kv[2, 0, 1, 20] = 500.0
    codec = TransformCodec.at(BASIS, 0, range(40))
    decoded = codec.decode(codec.encode(kv), GEOMETRY, 40)
    assert relative_error(kv, decoded) < 0.02


def test_calibrated_sinks_cost_nothing_and_foreign_ones_are_kept_exact_enough() -> None:
    usual = synthetic_cache(range(40), 60)
    for sink in range(BASIS.sinks.shape[1]):
        row = BASIS.sinks[:, sink].reshape(2, 4, 2, 8).transpose(0, 1).clone()
        rotation = Rotation.at(torch.tensor([sink]), 8, THETA)
        row[:, 0] = rotation.applied(row[:, 0][..., None, :])[..., 0, :]
        usual[:, :, :, sink] = row.to(torch.bfloat16)
    foreign = usual.clone()
    foreign[:, :, :, 0] = foreign[:, :, :, 0] * 40 + 7
    codec = TransformCodec.at(BASIS, 12, range(40))
    cheap, dear = codec.encode(usual), codec.encode(foreign)
    assert len(cheap) < len(dear)
    first = codec.decode(dear, GEOMETRY, 40)[:, :, :, :1]
    assert relative_error(foreign[:, :, :, :1], first) < 0.01


def test_rotation_is_undone_exactly_enough() -> None:
    keys = torch.randn(3, 50, 8, generator=torch.Generator().manual_seed(1))
    rotation = Rotation.at(torch.arange(5000, 5050), 8, THETA)
    assert torch.allclose(rotation.undone(rotation.applied(keys)), keys, atol=1e-5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 3e38])
def test_nonfinite_or_boundless_input_is_refused(bad: float) -> None:
    kv = synthetic_cache(range(10), 56)
    kv[0, 0, 0, 3, 2] = bad
    with pytest.raises(CodecError):
        TransformCodec.at(BASIS, 0, range(10)).encode(kv)


def test_other_geometry_level_or_count_is_refused() -> None:
    codec = TransformCodec.at(BASIS, 4, range(10))
    payload = codec.encode(synthetic_cache(range(10), 57))
    with pytest.raises(CodecError):
        codec.decode(payload, KvGeometry(4, 2, 16), 10)
    with pytest.raises(CodecError):
        codec.decode(payload, GEOMETRY, 9)
    for level in (-1, LEVELS):
        with pytest.raises(CodecError):
            TransformCodec.at(BASIS, level, range(10))


def test_a_payload_of_another_basis_is_refused() -> None:
    other = replace(BASIS, means=BASIS.means + 1)
    assert other.digest != BASIS.digest
    advised = replace(BASIS, int4_level=BASIS.int4_level + 1, graded_level=BASIS.graded_level + 1)
    assert advised.digest == BASIS.digest
    payload = TransformCodec.at(other, 4, range(10)).encode(synthetic_cache(range(10), 64))
    with pytest.raises(CodecError, match="another basis"):
        TransformCodec.at(BASIS, 4, range(10)).decode(payload, GEOMETRY, 10)


def test_expected_sizes_are_near_those_of_texts_like_the_calibration() -> None:
    payload = TransformCodec.at(BASIS, 12, range(4, 68)).encode(synthetic_cache(range(4, 68), 65))
    assert len(payload) == pytest.approx(expected_bytes(BASIS, 12, 64, 1), rel=0.15)


PAYLOAD = TransformCodec.at(BASIS, 6, range(12)).encode(synthetic_cache(range(12), 58))


@settings(max_examples=300)
@given(st.data())
def test_damaged_payloads_decode_to_finite_caches_or_are_refused(data: st.DataObject) -> None:
    payload = bytearray(PAYLOAD)
    for _ in range(data.draw(st.integers(0, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    del payload[data.draw(st.integers(0, len(payload))) :]
    codec = TransformCodec.at(BASIS, 6, range(12))
    try:
        decoded = codec.decode(bytes(payload), GEOMETRY, 12)
    except CodecError:
        return
    assert torch.isfinite(decoded.float()).all()


def test_the_artefact_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "basis.safetensors"
    BASIS.save(path)
    loaded = TransformBasis.load(path)
    kv = synthetic_cache(range(20), 59)
    first, second = (TransformCodec.at(basis, 5, range(20)) for basis in (BASIS, loaded))
    assert first.encode(kv) == second.encode(kv)
    assert loaded.digest == BASIS.digest
    assert (loaded.int4_level, loaded.graded_level) == (BASIS.int4_level, BASIS.graded_level)


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"\xff" * 100])
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "basis.safetensors"
    path.write_bytes(content)
    with pytest.raises(ProfileError):
        TransformBasis.load(path)
    with pytest.raises(ProfileError):
        TransformBasis.load(tmp_path / "absent.safetensors")

"""The GPU kernels write and read the reference's bytes (in Triton's interpreter, or on a GPU)."""

from __future__ import annotations

import importlib.util
import os

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from scout_core.codec import group_reference
from scout_core.codec.gpu.launch import Launch, dequantise_on_device, quantise_on_device
from scout_core.codec.group_layout import GroupLayout, GroupSections
from scout_core.errors import CodecError
from scout_core.geometry import KvGeometry

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
HAS_TRITON = importlib.util.find_spec("triton") is not None
needs_kernels = pytest.mark.skipif(
    not HAS_TRITON or not (INTERPRETED or torch.cuda.is_available()),
    reason="needs Triton (the gpu extra) and a GPU, or TRITON_INTERPRET=1",
)
# numpy, under the interpreter, warns of overflow where a GPU yields the infinity we test for
tolerates_overflow = pytest.mark.filterwarnings("ignore:(overflow|invalid value):RuntimeWarning")

Words = NDArray[np.uint16]
SHAPES = [(2, 2, 33, 64), (1, 3, 1, 128), (2, 1, 70, 128), (1, 2, 40, 96), (1, 1, 5, 16)]


def cache_bits(shape: tuple[int, int, int, int], scale: float, seed: int) -> Words:
    layers, heads, positions, channels = shape
    source = np.random.default_rng(seed)
    values = source.standard_normal((layers, 2, heads, positions, channels)) * scale
    values[..., 0, :] *= 30  # an attention sink: the first position is large
    bits = (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    bits[..., ::7, ::5] = 0x8000  # negative zeros among positive ones
    bits[..., ::9, 1::5] = 0
    return bits


def tensor_of(bits: Words) -> torch.Tensor:
    return torch.from_numpy(bits.view(np.int16).copy()).view(torch.bfloat16).to(DEVICE)


def reference_payload(bits: Words, with_fine: bool) -> NDArray[np.uint8] | None:
    layers, _, heads, positions, channels = bits.shape
    layout = GroupLayout(KvGeometry(layers=layers, kv_heads=heads, head_dim=channels), positions)
    payload = np.zeros(layout.coarse_bytes + with_fine * layout.fine_bytes, dtype=np.uint8)
    sections = GroupSections.over(payload, layout)
    return payload if group_reference.quantise(bits, sections, layout.group_channels) else None


def reference_bits(payload: NDArray[np.uint8], like: Words) -> Words:
    layers, _, heads, positions, channels = like.shape
    layout = GroupLayout(KvGeometry(layers=layers, kv_heads=heads, head_dim=channels), positions)
    bits = np.empty_like(like)
    group_reference.dequantise(GroupSections.over(payload, layout), bits)
    return bits


@needs_kernels
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("with_fine", [False, True])
@pytest.mark.parametrize("scale", [0.0, 1e-39, 1e-30, 1.0, 1e30])
def test_kernels_and_reference_agree_bit_for_bit(
    shape: tuple[int, int, int, int], with_fine: bool, scale: float
) -> None:
    bits = cache_bits(shape, scale, seed=7)
    expected = reference_payload(bits, with_fine)
    assert expected is not None
    cache = tensor_of(bits)
    payload = quantise_on_device(cache, with_fine=with_fine).checked()
    assert np.array_equal(payload.cpu().numpy(), expected)
    decoded = dequantise_on_device(payload, torch.zeros_like(cache)).checked()
    words = decoded.cpu().view(torch.int16).numpy().view(np.uint16)
    assert np.array_equal(words, reference_bits(expected, bits))


@needs_kernels
@pytest.mark.parametrize(
    "launch",
    [
        Launch(key_lanes=16, key_warps=1, key_vector=4, value_units=16),
        Launch(key_lanes=128, key_warps=4, value_units=128, value_vector=8),
    ],
)
def test_a_launch_changes_no_byte(launch: Launch) -> None:
    bits = cache_bits((1, 2, 70, 128), 1.0, seed=1)
    expected = reference_payload(bits, with_fine=True)
    assert expected is not None
    payload = quantise_on_device(tensor_of(bits), with_fine=True, launch=launch).checked()
    assert np.array_equal(payload.cpu().numpy(), expected)
    into = torch.zeros_like(tensor_of(bits))
    words = dequantise_on_device(payload, into, launch=launch).checked().cpu().view(torch.int16)
    assert np.array_equal(words.numpy().view(np.uint16), reference_bits(expected, bits))


@needs_kernels
def test_some_positions_of_a_longer_cache_are_coded_in_place() -> None:
    bits = cache_bits((2, 2, 90, 64), 1.0, seed=2)
    part = np.ascontiguousarray(bits[:, :, :, 11:52])
    expected = reference_payload(part, with_fine=False)
    assert expected is not None
    longer = tensor_of(bits)
    payload = quantise_on_device(longer[:, :, :, 11:52], with_fine=False).checked()
    assert np.array_equal(payload.cpu().numpy(), expected)
    dequantise_on_device(payload, longer[:, :, :, 11:52]).checked()
    words = longer.cpu().view(torch.int16).numpy().view(np.uint16)
    assert np.array_equal(words[:, :, :, 11:52], reference_bits(expected, part))
    assert np.array_equal(words[:, :, :, :11], bits[:, :, :, :11])
    assert np.array_equal(words[:, :, :, 52:], bits[:, :, :, 52:])


@needs_kernels
@tolerates_overflow
@pytest.mark.parametrize("word", [0x7F80, 0xFF80, 0x7FC0, 0xFFC1, 0x7F7F, 0xFF7F])
@pytest.mark.parametrize("part", [0, 1])
def test_what_the_reference_refuses_is_refused(word: int, part: int) -> None:
    bits = cache_bits((1, 1, 40, 64), 1.0, seed=3)
    bits[0, part, 0, 35, 40] = word
    assert reference_payload(bits, with_fine=False) is None
    with pytest.raises(CodecError):
        quantise_on_device(tensor_of(bits), with_fine=False).checked()


@needs_kernels
@tolerates_overflow
@pytest.mark.parametrize("word", [0x7F80, 0x7FC0, 0x8001, 0x7F00])
@pytest.mark.parametrize("section", ["key_steps", "value_steps"])
def test_a_forbidden_step_in_a_payload_is_refused(word: int, section: str) -> None:
    bits = cache_bits((1, 1, 40, 64), 1.0, seed=4)
    payload = reference_payload(bits, with_fine=False)
    assert payload is not None
    layout = GroupLayout(KvGeometry(layers=1, kv_heads=1, head_dim=64), 40)
    getattr(GroupSections.over(payload, layout), section)[0, 1, 1] = word
    with pytest.raises(CodecError):
        dequantise_on_device(torch.from_numpy(payload).to(DEVICE), tensor_of(bits)).checked()


@pytest.mark.skipif(HAS_TRITON, reason="Triton is installed")
def test_without_triton_the_error_says_what_to_install() -> None:
    with pytest.raises(CodecError, match=r"scout-kv\[gpu\]"):
        quantise_on_device(tensor_on_cpu(), with_fine=False)


@pytest.mark.skipif(not HAS_TRITON, reason="needs Triton (the gpu extra)")
def test_a_cpu_tensor_is_refused_outside_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(CodecError, match="CUDA"):
        quantise_on_device(tensor_on_cpu(), with_fine=False)


def test_more_slabs_than_a_grid_holds_are_refused() -> None:
    kv = torch.zeros(256, 2, 256, 1, 2, dtype=torch.bfloat16)
    with pytest.raises(CodecError, match="split the layers"):
        quantise_on_device(kv, with_fine=False)


def test_a_payload_of_another_size_is_refused() -> None:
    with pytest.raises(CodecError, match="positions take"):
        dequantise_on_device(torch.zeros(17, dtype=torch.uint8), tensor_on_cpu())


@pytest.mark.parametrize(
    "kv",
    [
        torch.zeros(1, 2, 1, 4, 64),
        torch.zeros(2, 1, 4, 64, dtype=torch.bfloat16),
        torch.zeros(1, 2, 1, 64, 4, dtype=torch.bfloat16).transpose(3, 4),
        torch.zeros(1, 2, 1, 4, 63, dtype=torch.bfloat16),
    ],
)
def test_a_cache_of_another_form_is_refused(kv: torch.Tensor) -> None:
    with pytest.raises(CodecError):
        quantise_on_device(kv, with_fine=False)


def tensor_on_cpu() -> torch.Tensor:
    return torch.zeros(1, 2, 1, 4, 64, dtype=torch.bfloat16)

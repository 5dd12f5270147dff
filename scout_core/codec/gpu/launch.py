"""Launches the group kernels on tensors of one device, without waiting for it.

Owns shapes, section addresses and launch sizes; the arithmetic is in ``kernels`` and the byte
format in ``scout_core.codec.group_layout``. It does not choose between GPU and CPU: the caller
holds a cache on a device and calls this, or moves it and calls a codec of the registry.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from importlib.util import find_spec
from math import prod
from typing import Any, Final

import torch

from scout_core.codec.base import geometry_of, not_finite
from scout_core.codec.group_layout import GroupLayout
from scout_core.errors import CodecError
from scout_core.geometry import KvGeometry


@dataclass(frozen=True, slots=True)
class Launch:
    """How the kernels are cut into programs; changes speed, never bytes.

    Args:
        key_lanes: channel pairs of a key program, a power of two.
        key_warps: warps of a key program.
        key_vector: channels of a row that a thread of a key program holds.
        value_units: pairs of value groups of a value program, a power of two.
        value_warps: warps of a value program.
        value_vector: channels of a row that a thread of a value program holds; at most 8 in
            decoding, where a thread writes no more than 16 bytes at once.
        rounds_natively: decode with the GPU's own rounding to bf16 (equal bits, fewer
            instructions); Triton's interpreter truncates instead, so leave it off there.
    """

    key_lanes: int = 64
    key_warps: int = 1
    key_vector: int = 8
    value_units: int = 64
    value_warps: int = 2
    value_vector: int = 16
    rounds_natively: bool = False


ENCODE_LAUNCH: Final = Launch(key_vector=4, value_units=128, value_warps=4)
DECODE_LAUNCH: Final = Launch(key_warps=2, value_vector=8)
"""The fastest that ``tests/bench/bench_codec_gpu.py`` found on one H200."""
ROUNDS_NATIVELY_FROM: Final = (9, 0)
"""Compute capability on which the GPU's own rounding was found to give the same bits."""
LARGEST_GRID: Final = 65535
"""CUDA's limit on the second grid axis, which slabs run along."""


def decode_launch(device: torch.device) -> Launch:
    """The launch to decode with on ``device``."""
    native = device.type == "cuda" and os.environ.get("TRITON_INTERPRET") != "1"
    if native and torch.cuda.get_device_capability(device) >= ROUNDS_NATIVELY_FROM:
        return replace(DECODE_LAUNCH, rounds_natively=True)
    return DECODE_LAUNCH


@dataclass(frozen=True, slots=True)
class DeviceResult:
    """A tensor being computed, and whether its input turns out to be refused.

    ``pending`` may be used on the same stream at once; its content means something only if
    ``checked`` returns it. ``fault`` is int32 ``[1]`` on the same device, 0 while nothing is wrong.
    """

    pending: torch.Tensor
    fault: torch.Tensor
    name: str

    def checked(self) -> torch.Tensor:
        """The tensor, after waiting for the device.

        Raises:
            CodecError: NaN, infinity or an out-of-range group in the input.
        """
        if int(self.fault.item()):
            raise not_finite(self.name)
        return self.pending


def quantise_on_device(
    kv: torch.Tensor, *, with_fine: bool, launch: Launch = ENCODE_LAUNCH
) -> DeviceResult:
    """The payload (uint8) of a bf16 cache ``[layers, 2, kv_heads, positions, head_dim]``.

    ``kv`` may be a view, such as some positions of a longer cache, as long as channels are
    adjacent. int8 if ``with_fine``, else int4. Does not wait for the device.

    Raises:
        CodecError: wrong shape, type or strides, or Triton is not installed.
    """
    layout = _checked_layout(kv)
    size = layout.coarse_bytes + with_fine * layout.fine_bytes
    payload = torch.empty(size, dtype=torch.uint8, device=kv.device)
    fault = torch.zeros(1, dtype=torch.int32, device=kv.device)
    with torch.cuda.device_of(kv):
        _run(_Job(layout, kv.view(torch.int16), payload, fault, launch), "encode")
    return DeviceResult(payload, fault, _name(with_fine))


def dequantise_on_device(
    payload: torch.Tensor, into: torch.Tensor, *, launch: Launch | None = None
) -> DeviceResult:
    """Writes a payload (uint8, contiguous, on the device) to a bf16 cache or a view of one.

    The payload's size says whether it is int8 or int4. Groups that the format forbids are written
    as zeros and reported by ``checked``. Does not wait for the device.

    Args:
        launch: ``decode_launch`` of the device unless given.

    Raises:
        CodecError: ``into`` or the payload's size, type or device are wrong, or no Triton.
    """
    layout = _checked_layout(into)
    sizes = (layout.coarse_bytes, layout.coarse_bytes + layout.fine_bytes)
    if payload.dtype != torch.uint8 or payload.ndim != 1 or not payload.is_contiguous():
        raise CodecError("A payload on a device must be one contiguous row of uint8.")
    if payload.device != into.device or payload.numel() not in sizes:
        raise CodecError(
            f"{layout.positions} positions take {sizes[0]} or {sizes[1]} bytes on {into.device}, "
            f"got {payload.numel()} on {payload.device}."
        )
    if payload.storage_offset() % 2:
        payload = payload.clone()  # sections of 16-bit words need an even address
    fault = torch.zeros(1, dtype=torch.int32, device=into.device)
    chosen = launch or decode_launch(into.device)
    with torch.cuda.device_of(into):
        _run(_Job(layout, into.view(torch.int16), payload, fault, chosen), "decode")
    return DeviceResult(into, fault, _name(payload.numel() == sizes[1]))


def empty_cache(geometry: KvGeometry, positions: int, device: torch.device) -> torch.Tensor:
    """An uninitialised bf16 cache ``[layers, 2, kv_heads, positions, head_dim]`` on a device."""
    return torch.empty(geometry.shape(positions), dtype=torch.bfloat16, device=device)


@dataclass(frozen=True, slots=True)
class _Job:
    """What one pair of launches (keys, values) works on."""

    layout: GroupLayout
    cache: torch.Tensor
    payload: torch.Tensor
    fault: torch.Tensor
    launch: Launch

    @property
    def with_fine(self) -> bool:
        return self.payload.numel() > self.layout.coarse_bytes

    def pointers(self, part: int) -> tuple[torch.Tensor, ...]:
        """Cache, offsets, steps, coarse, fine (coarse again for int4) and fault of one part."""
        layout = self.layout
        words = [2 * prod(layout.key_groups_shape)] * 2 + [2 * prod(layout.value_groups_shape)] * 2
        plane = prod(layout.nibbles_shape)
        sections = self.payload.split(words + [plane] * (4 if self.with_fine else 2))
        offsets, steps = (
            section.view(torch.int16) for section in sections[2 * part : 2 * part + 2]
        )
        fine = sections[6 + part] if self.with_fine else sections[4 + part]
        return (self.cache[:, part], offsets, steps, sections[4 + part], fine, self.fault)


def _run(job: _Job, direction: str) -> None:
    """Launches the two kernels of one direction."""
    kernels = _kernels()
    if not job.cache.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        raise CodecError(f"GPU codecs take CUDA tensors, got {job.cache.device}; use a CPU codec.")
    layout, launch = job.layout, job.launch
    half, group = layout.geometry.head_dim // 2, layout.group_channels
    kv_heads, positions = layout.geometry.kv_heads, layout.positions
    stride = job.cache.stride()
    strides = (stride[0], stride[2], stride[3])
    lanes = min(launch.key_lanes, _power_of_two(half))
    native = (launch.rounds_natively,) if direction == "decode" else ()
    vector = min(launch.value_vector, 8) if native else launch.value_vector
    units = positions * (half // group)
    key_grid = (layout.position_groups * -(-half // lanes), layout.slabs)
    getattr(kernels, f"{direction}_keys")[key_grid](
        job.pointers(0),
        strides,
        (kv_heads, positions, layout.position_groups),
        (half, lanes, job.with_fine, launch.key_vector, *native),
        num_warps=launch.key_warps,
        enable_fp_fusion=False,
    )
    getattr(kernels, f"{direction}_values")[(-(-units // launch.value_units), layout.slabs)](
        job.pointers(1),
        strides,
        (kv_heads, positions),
        (half, group, job.with_fine, vector, launch.value_units, _power_of_two(group), *native),
        num_warps=launch.value_warps,
        enable_fp_fusion=False,
    )


def _kernels() -> Any:
    """The kernels' module, which imports Triton.

    Raises:
        CodecError: Triton is not installed.
    """
    if find_spec("triton") is None:
        raise CodecError(
            "GPU codecs need Triton: pip install 'scout-kv[gpu]', or move the cache to the CPU."
        )
    from scout_core.codec.gpu import kernels  # noqa: PLC0415 - Triton is optional

    return kernels


def _checked_layout(kv: torch.Tensor) -> GroupLayout:
    if kv.ndim != 5 or kv.shape[1] != 2 or kv.dtype != torch.bfloat16:
        raise CodecError(
            "KV must be bfloat16 [layers, 2, kv_heads, positions, head_dim], got "
            f"{kv.dtype} {tuple(kv.shape)}.",
        )
    if kv.stride(4) != 1:
        raise CodecError("Channels of a KV cache must be adjacent; make it contiguous first.")
    layout = GroupLayout(geometry_of(kv), kv.shape[3])
    if layout.slabs > LARGEST_GRID:
        raise CodecError(f"GPU codecs take {LARGEST_GRID} (layer, head) pairs; split the layers.")
    return layout


def _power_of_two(value: int) -> int:
    """The least power of two from ``value`` up."""
    return 1 << (value - 1).bit_length()


def _name(with_fine: bool) -> str:
    return "int8_groups" if with_fine else "int4_groups"

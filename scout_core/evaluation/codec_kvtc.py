"""A KVTC-like peer of the codec study: principal components, planned widths, DEFLATE.

Owns the coder. It is ours, written from the paper (arXiv 2511.01815): keys before rotary
embedding, components of several layers and heads at once, widths from a dynamic programme
(``codec_kvtc_plan``), everything DEFLATEd; the first 4 and the last 128 positions are raw, as the
paper and its open re-implementation have it. ``no_window`` codes the last 128 like all others: the
published form cannot reach a ratio of 2 on 240 positions.

The components are those of the covariance that our own artefact implies, so both are calibrated on
the same texts and over the same groups of layers, and neither is charged for its matrices. Unlike
ours they are not weighed by their effect on the model's output. Payload: raw rows, then one DEFLATE
stream; sizes are real, nothing is idealised. Trusts its bytes: it is no codec for the wire.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import numpy as np
import torch

from scout_core.codec.base import geometry_of
from scout_core.codec.rotary import Rotation
from scout_core.codec.transform_basis import TransformBasis
from scout_core.errors import CodecError
from scout_core.evaluation.codec_coded import Code, Coded, Contender, ExactCache
from scout_core.evaluation.codec_kvtc_plan import SINGLE_BITS, Plan, Run, planned
from scout_core.evaluation.codec_statistics import grouped_rows
from scout_core.geometry import KvGeometry

BUDGETS: Final = (1.5, 2.5, 3.5)
"""Bits an element before DEFLATE."""
RAW_FIRST: Final = 4
RAW_LAST: Final = 128
DEFLATE_LEVEL: Final = 6


@dataclass(frozen=True)
class PrincipalComponents:
    """Orthonormal components of a basis' calibration texts, made when first needed."""

    basis: TransformBasis
    _plans: dict[float, Plan] = field(default_factory=dict[float, Plan])

    @cached_property
    def _spectrum(self) -> tuple[torch.Tensor, torch.Tensor]:
        weighed = self.basis.inverse * self.basis.deviations[:, :, None, :]
        variances, vectors = torch.linalg.eigh(weighed @ weighed.transpose(2, 3))
        return variances.clamp_min(0).sqrt().flip(-1), vectors.flip(-1)

    @property
    def columns(self) -> torch.Tensor:
        """``[2, groups, width, width]``: a component a column."""
        return self._spectrum[1]

    def plan(self, bits_per_element: float) -> Plan:
        """How a budget of bits an element before DEFLATE is spent."""
        if bits_per_element not in self._plans:
            deviations = self._spectrum[0].flatten(0, 1).double().numpy()
            self._plans[bits_per_element] = planned(deviations, bits_per_element)
        return self._plans[bits_per_element]


@dataclass(frozen=True)
class KvtcLike:
    """The coder at one budget of bits an element before DEFLATE."""

    components: PrincipalComponents
    bits_per_element: float
    raw_last: int
    """Positions at the end that are sent as they are."""

    def encode(self, kv: torch.Tensor, first: int) -> bytes:
        """A bf16 cache whose first row is at absolute position ``first``."""
        raw = self._raw_rows(kv.shape[3], first)
        rest = kv[:, :, :, ~raw]
        body = b""
        if rest.shape[3]:
            basis = self.components.basis
            rows = grouped_rows(rest, basis.groups, self._rotation(raw, first))
            rows = (rows - basis.means[:, :, None]) @ self.components.columns
            streams = rows.flatten(0, 1)
            parts = [
                part
                for stream, runs in enumerate(self._plan)
                for run in runs
                for part in _quantised(streams[stream][:, run.start : run.start + run.size], run)
            ]
            body = zlib.compress(b"".join(parts), DEFLATE_LEVEL)
        return kv[:, :, :, raw].contiguous().view(torch.int16).numpy().tobytes() + body

    def decode(
        self, payload: bytes, geometry: KvGeometry, positions: int, first: int
    ) -> torch.Tensor:
        """What ``encode`` made, with the arguments it had."""
        raw = self._raw_rows(positions, first)
        sent, coded = int(raw.sum()), int((~raw).sum())
        kv = torch.empty(geometry.shape(positions), dtype=torch.bfloat16)
        cut = geometry.bf16_bytes_per_token * sent
        if sent:
            words = torch.frombuffer(bytearray(payload[:cut]), dtype=torch.int16)
            kv[:, :, :, raw] = words.view(torch.bfloat16).reshape(geometry.shape(sent))
        if coded:
            rows = self._rows(zlib.decompress(payload[cut:]), coded)
            kv[:, :, :, ~raw] = _ungrouped(rows, geometry, self._rotation(raw, first))
        return kv

    def _rows(self, body: bytes, count: int) -> torch.Tensor:
        """``[2, groups, count, width]`` from the inflated stream."""
        basis = self.components.basis
        streams = torch.zeros(2 * basis.groups, count, basis.width)
        cursor = 0
        for stream, runs in enumerate(self._plan):
            for run in runs:
                end = cursor + count * run.position_bits // 8
                place = slice(run.start, run.start + run.size)
                streams[stream, :, place] = _read(body[cursor:end], run, count)
                cursor = end
        rows = streams.reshape(2, basis.groups, count, basis.width)
        return rows @ self.components.columns.transpose(2, 3) + basis.means[:, :, None]

    @property
    def _plan(self) -> Plan:
        return self.components.plan(self.bits_per_element)

    def _raw_rows(self, positions: int, first: int) -> torch.Tensor:
        """bool ``[positions]``."""
        places = torch.arange(positions)
        return (places + first < RAW_FIRST) | (places >= positions - self.raw_last)

    def _rotation(self, raw: torch.Tensor, first: int) -> Rotation:
        basis = self.components.basis
        places = torch.arange(first, first + raw.numel())[~raw]
        return Rotation.at(places, basis.geometry.head_dim, basis.theta)


def kvtc_peers(basis: TransformBasis) -> Iterator[Contender]:
    """At several budgets, with and without the raw window."""
    components = PrincipalComponents(basis)
    for family, raw_last in (("kvtc_like", RAW_LAST), ("kvtc_like_no_window", 0)):
        for bits in BUDGETS:
            name = family.replace("kvtc_like", f"kvtc_like_{bits:g}")
            yield Contender(name, family, "peer", _with(KvtcLike(components, bits, raw_last)))


def _with(coder: KvtcLike) -> Code:
    def code(cache: ExactCache) -> Coded:
        if cache.selected is not None:
            raise CodecError("The KVTC-like peers code whole contexts, no selections.")
        kv, first = cache.kv, cache.first
        payload = coder.encode(kv, first)
        decoded = coder.decode(payload, geometry_of(kv), kv.shape[3], first)
        return Coded(decoded, len(payload))

    return code


def _quantised(values: torch.Tensor, run: Run) -> tuple[bytes, ...]:
    """Shifts, scales and codes of a run ``[positions, size]``."""
    if run.bits == SINGLE_BITS:
        return (_bf16_bytes(values),)
    lowest = values.amin(dim=1, keepdim=True).bfloat16()
    levels = 2**run.bits - 1
    step = ((values.amax(dim=1, keepdim=True) - lowest.float()) / levels).bfloat16()
    divisor = torch.where(step > 0, step, torch.ones_like(step)).float()
    codes = ((values - lowest.float()) / divisor).round().clamp(0, levels)
    per_byte = 8 // run.bits
    split = codes.to(torch.uint8).numpy().reshape(len(values), -1, per_byte)
    shifts = np.arange(per_byte, dtype=np.uint8) * run.bits
    packed = np.bitwise_or.reduce(split << shifts, axis=2)
    return _bf16_bytes(lowest), _bf16_bytes(step), packed.astype(np.uint8).tobytes()


def _read(stored: bytes, run: Run, count: int) -> torch.Tensor:
    """A run's values ``[count, size]``."""
    if run.bits == SINGLE_BITS:
        return _from_bf16(stored)
    side = 2 * count
    lowest, step = _from_bf16(stored[:side]), _from_bf16(stored[side : 2 * side])
    packed = np.frombuffer(stored[2 * side :], dtype=np.uint8).reshape(count, -1, 1)
    shifts = np.arange(8 // run.bits, dtype=np.uint8) * run.bits
    codes = (packed >> shifts & (2**run.bits - 1)).reshape(count, run.size)
    return lowest + step * torch.from_numpy(codes.astype(np.float32))


def _bf16_bytes(values: torch.Tensor) -> bytes:
    return values.to(torch.bfloat16).contiguous().view(torch.int16).numpy().tobytes()


def _from_bf16(stored: bytes) -> torch.Tensor:
    """float32 ``[count, 1]``."""
    words = torch.frombuffer(bytearray(stored), dtype=torch.int16)
    return words.view(torch.bfloat16).float()[:, None]


def _ungrouped(rows: torch.Tensor, geometry: KvGeometry, rotation: Rotation) -> torch.Tensor:
    """``[2, groups, positions, width]`` as a bf16 cache, keys rotated."""
    groups, positions = rows.shape[1], rows.shape[2]
    split = rows.reshape(
        2, groups, positions, geometry.layers // groups, geometry.kv_heads, geometry.head_dim
    )
    kv = split.permute(1, 3, 0, 4, 2, 5).reshape(geometry.shape(positions))
    keys = rotation.applied(kv[:, 0])
    return torch.stack((keys, kv[:, 1]), dim=1).to(torch.bfloat16)

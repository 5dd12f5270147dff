"""Codec ``transform``: calibrated linear transform, uniform quantiser, shared entropy models.

Owns the payload of the transform codec; the artefact is ``transform_basis``. Keys are turned back
to before their rotary embedding, so the codec has to be told the absolute position of every cached
row: it is bound to positions (``TransformCodec.at``) before it is used, unlike the other codecs.
One step for all coefficients is reverse water-filling, since the basis scales them to equal
importance; coefficients that vary less than a quarter of the step are not sent.

The first positions of a context are attention sinks: far from all other rows, and every later token
feels an error in them. Where they equal the calibrated ones (the chat template's first tokens) they
cost nothing; else they travel as ``int8_groups``. Coding four such rows like all others made the KL
divergence on 2,048-token texts 2.4 to 3.5 times larger, at a ratio of 11.

Payload: level u8 (step = finest step · 2^(level / 4)); flags u8 (bit i: the row at absolute
position i is measured from the calibrated sink); number of escapes u32; for keys and values, for
each group, stream length u32; the other sink rows of the block as one ``int8_groups`` payload, if
any; the streams (``rans``): symbols of the sent coefficients, position after position, zero in rows
already sent; escapes i32, in stream order. Symbol s means s − 127; 255 an escape.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from scout_core.codec.base import (
    CodecId,
    check_positions,
    checked_kv,
    geometry_of,
    not_finite,
)
from scout_core.codec.compiled import compiled, default_threads, run_sliced
from scout_core.codec.finite import is_finite
from scout_core.codec.int8_groups import Int8GroupsCodec
from scout_core.codec.rans import STATE_BYTES, decode_symbols, encode_symbols
from scout_core.codec.rotary import Rotation
from scout_core.codec.transform_basis import TransformBasis, classes_of
from scout_core.errors import CodecError
from scout_core.geometry import KvGeometry

LEVELS: Final = 32
LEVELS_PER_OCTAVE: Final = 4
ZERO: Final = 127
ESCAPE: Final = 255
ROUNDING: Final = 0.4
"""Added before truncation: values up to 0.6 steps become 0, which costs little and saves bits."""
LARGEST_VALUE: Final = float(1 << 30)
SINK_TOLERANCE_STEPS: Final = 1.0
"""Root mean square distance up to which a row counts as the calibrated sink."""
_HEAD: Final = struct.Struct("<BBI")
_SINK_ROWS: Final = Int8GroupsCodec()

Octets = NDArray[np.uint8]


@dataclass(frozen=True)
class TransformCodec:
    """A basis, a level and the absolute positions of the rows to code."""

    basis: TransformBasis
    level: int
    positions: torch.Tensor
    """int64 ``[positions]``."""

    name = "transform"
    codec_id = CodecId.TRANSFORM
    is_fixed_rate = False

    @classmethod
    def at(cls, basis: TransformBasis, level: int, positions: Sequence[int]) -> TransformCodec:
        """Binds a basis to a level (0 finest, each 4 double the step) and absolute positions.

        Raises:
            CodecError: level or positions out of range.
        """
        if not 0 <= level < LEVELS:
            raise CodecError(f"Transform level must be in 0..{LEVELS - 1}, got {level}.")
        check_positions(len(positions))
        return cls(basis, level, torch.tensor(positions, dtype=torch.int64))

    def encode(self, kv: torch.Tensor) -> bytes:
        """See ``KvCodec.encode``; also refuses another geometry or position count."""
        exact = checked_kv(kv)
        self._check(geometry_of(exact), exact.shape[3])
        if not is_finite(exact):
            raise not_finite(self.name)
        rows = self._rows(exact.float())
        step = _step(self.basis, self.level)
        flags = self._sink_flags(rows, step)
        rows -= self._means(flags)
        foreign = self._foreign_sinks(flags)
        rows[:, :, foreign] = 0
        sink_rows = _SINK_ROWS.encode(exact[:, :, :, foreign]) if foreign else b""
        plan = _Plan.of(self.basis, step)
        streams: list[bytes] = [b""] * plan.streams
        escapes: list[NDArray[np.int32]] = [np.empty(0, np.int32)] * plan.streams

        def encode_streams(first: int, last: int) -> bool:
            for index in range(first, last):
                kind, group = divmod(index, self.basis.groups)
                forward = self.basis.forward[kind, group, : plan.sent[index]]
                values = (rows[kind, group] @ forward.T).mul_(1 / step).numpy()
                if float(np.abs(values).max(initial=0.0)) >= LARGEST_VALUE:
                    return False
                symbols = np.empty(values.shape, dtype=np.uint8)
                found = np.empty(values.size, dtype=np.int32)
                count = int(_quantise(values.reshape(-1), symbols.reshape(-1), found))
                escapes[index] = found[:count]
                models = plan.models(index, exact.shape[3])
                streams[index] = encode_symbols(symbols.reshape(-1), models, self.basis.coder)
            return True

        if not run_sliced(encode_streams, plan.streams, exact.nbytes, default_threads()):
            raise CodecError("transform: the cache is too large in magnitude; send it as raw_bf16.")
        escaped = np.concatenate(escapes).astype("<i4")
        lengths = np.array([len(stream) for stream in streams], dtype="<u4")
        head = _HEAD.pack(self.level, flags, escaped.size)
        return b"".join((head, lengths.tobytes(), sink_rows, *streams, escaped.tobytes()))

    def decode(
        self, payload: bytes | memoryview, geometry: KvGeometry, positions: int
    ) -> torch.Tensor:
        """See ``KvCodec.decode``; the payload's level counts, not the codec's."""
        self._check(geometry, positions)
        view = memoryview(payload)
        if len(view) < _HEAD.size:
            raise CodecError("transform: payload is truncated.")
        foreign = self._foreign_sinks(view[1])
        parts = _Parts.of(view, self.basis, len(foreign))
        streams, escaped = parts.streams, parts.escapes
        step = _step(self.basis, parts.level)
        plan = _Plan.of(self.basis, step)
        symbols: list[Octets] = [np.empty(0, np.uint8)] * plan.streams
        rows = torch.empty(2, self.basis.groups, positions, self.basis.width)

        def decode_streams(first: int, last: int) -> bool:
            for index in range(first, last):
                models = plan.models(index, positions)
                symbols[index] = decode_symbols(streams[index], models, self.basis.coder)
            return True

        def rebuild(first: int, last: int) -> bool:
            for index in range(first, last):
                kind, group = divmod(index, self.basis.groups)
                sent = plan.sent[index]
                values = np.empty((positions, sent), dtype=np.float32)
                shifts = plan.shrinkage(index)
                found = escaped[starts[index] : starts[index + 1]]
                _dequantise(symbols[index].reshape(positions, sent), shifts, found, values)
                inverse = self.basis.inverse[kind, group, :, :sent]
                torch.matmul(torch.from_numpy(values).mul_(step), inverse.T, out=rows[kind, group])
            return True

        work_bytes = geometry.bf16_bytes(positions)
        run_sliced(decode_streams, plan.streams, work_bytes, default_threads())
        counts = [int(np.count_nonzero(found == ESCAPE)) for found in symbols]
        starts = [sum(counts[:index]) for index in range(plan.streams + 1)]
        if starts[-1] != escaped.size:
            raise CodecError("transform: escapes announced and escapes sent differ.")
        run_sliced(rebuild, plan.streams, work_bytes, default_threads())
        kv = self._cache(rows + self._means(parts.flags))
        if foreign:
            kv[:, :, :, foreign] = _SINK_ROWS.decode(parts.sink_rows, geometry, len(foreign))
        return kv

    def encoded_bytes(self, geometry: KvGeometry, positions: int) -> int:
        """See ``KvCodec.encoded_bytes``; the entropy of the models: what calibration texts took."""
        self._check(geometry, positions)
        step = _step(self.basis, self.level)
        classes = classes_of(self.basis.deviations, step)
        used = self.basis.frequencies.astype(np.float64) / (1 << 12)
        entropies = -(used * np.log2(np.where(used > 0, used, 1.0))).sum(axis=1)
        bits = float(entropies[classes[classes >= 0].numpy()].sum())
        return round(positions * bits / 8) + 2 * self.basis.groups * (STATE_BYTES + 4)

    def _check(self, geometry: KvGeometry, positions: int) -> None:
        if geometry != self.basis.geometry:
            raise CodecError(f"transform: calibrated for {self.basis.geometry}, got {geometry}.")
        if positions != self.positions.numel():
            raise CodecError(
                f"transform: bound to {self.positions.numel()} positions, got {positions}.",
            )

    def _rotation(self) -> Rotation:
        return Rotation.at(self.positions, self.basis.geometry.head_dim, self.basis.theta)

    def _sinks(self) -> dict[int, int]:
        """Sink positions that this block holds, each with its row."""
        found: dict[int, int] = {}
        for sink in range(self.basis.sinks.shape[1]):
            rows = torch.nonzero(self.positions == sink).flatten()
            if rows.numel() == 1:
                found[sink] = int(rows)
        return found

    def _sink_flags(self, rows: torch.Tensor, step: float) -> int:
        """A bit for every sink row that is the calibrated one."""
        flags = 0
        for sink, index in self._sinks().items():
            residual = (rows[:, :, index] - self.basis.sinks[:, sink])[..., None]
            distance = (self.basis.forward @ residual).square().mean().sqrt() / step
            if float(distance) <= SINK_TOLERANCE_STEPS:
                flags |= 1 << sink
        return flags

    def _foreign_sinks(self, flags: int) -> list[int]:
        """Rows of the sinks present without their flag.

        Raises:
            CodecError: a flag for a row that this block does not have.
        """
        sinks = self._sinks()
        if flags & ~sum(1 << sink for sink in sinks):
            raise CodecError("transform: flags name rows that this block does not have.")
        return [index for sink, index in sinks.items() if not flags >> sink & 1]

    def _means(self, flags: int) -> torch.Tensor:
        """What each row is measured from: ``[2, groups, positions, width]``."""
        count = self.positions.numel()
        means = self.basis.means[:, :, None].expand(-1, -1, count, -1).clone()
        for sink in range(self.basis.sinks.shape[1]):
            if flags >> sink & 1:
                means[:, :, self.positions == sink] = self.basis.sinks[:, sink, :, None]
        return means

    def _rows(self, kv: torch.Tensor) -> torch.Tensor:
        """``[2, groups, positions, width]``: the cache with keys unrotated."""
        layers, _, kv_heads, positions, head_dim = kv.shape
        keys = self._rotation().undone(kv[:, 0])
        rows = torch.stack((keys, kv[:, 1]))
        per_group = layers // self.basis.groups
        rows = rows.reshape(2, self.basis.groups, per_group, kv_heads, positions, head_dim)
        return rows.permute(0, 1, 4, 2, 3, 5).reshape(2, self.basis.groups, positions, -1)

    def _cache(self, rows: torch.Tensor) -> torch.Tensor:
        """Inverse of ``_rows``, rounded to bf16."""
        layers, kv_heads, head_dim = (
            self.basis.geometry.layers,
            self.basis.geometry.kv_heads,
            self.basis.geometry.head_dim,
        )
        per_group = layers // self.basis.groups
        rows = rows.reshape(2, self.basis.groups, -1, per_group, kv_heads, head_dim)
        rows = rows.permute(0, 1, 3, 4, 2, 5).reshape(2, layers, kv_heads, -1, head_dim)
        keys = self._rotation().applied(rows[0])
        return torch.stack((keys, rows[1]), dim=1).to(torch.bfloat16)


@dataclass(frozen=True)
class _Plan:
    """Which coefficients of each stream are sent at a step, and under which model."""

    basis: TransformBasis
    classes: torch.Tensor
    """int64 ``[2 · groups, width]``, -1 where not sent; descending, as deviations are."""
    sent: list[int]

    @classmethod
    def of(cls, basis: TransformBasis, step: float) -> _Plan:
        classes = classes_of(basis.deviations, step).reshape(-1, basis.width)
        return cls(basis, classes, [int(count) for count in (classes >= 0).sum(dim=1)])

    @property
    def streams(self) -> int:
        """Keys' groups, then values' groups."""
        return len(self.sent)

    def models(self, index: int, positions: int) -> Octets:
        """The model of every symbol of a stream, uint8."""
        classes = self.classes[index, : self.sent[index]].numpy().astype(np.uint8)
        return np.tile(classes, positions)

    def shrinkage(self, index: int) -> NDArray[np.float32]:
        """The reconstruction offset of each sent coefficient's ±1."""
        return self.basis.shrinkage[self.classes[index, : self.sent[index]]].numpy()


def _step(basis: TransformBasis, level: int) -> float:
    return basis.finest_step * 2.0 ** (level / LEVELS_PER_OCTAVE)


@dataclass(frozen=True)
class _Parts:
    """A payload taken apart."""

    level: int
    flags: int
    sink_rows: memoryview
    streams: list[memoryview]
    escapes: NDArray[np.int32]

    @classmethod
    def of(cls, view: memoryview, basis: TransformBasis, sink_rows: int) -> _Parts:
        """Raises CodecError if sizes do not add up."""
        fixed = _HEAD.size + 8 * basis.groups
        if len(view) < fixed:
            raise CodecError("transform: payload is truncated.")
        level, flags, count = _HEAD.unpack_from(view)
        lengths = np.frombuffer(view[_HEAD.size : fixed], dtype="<u4").astype(np.int64)
        exact = _SINK_ROWS.encoded_bytes(basis.geometry, sink_rows) if sink_rows else 0
        if level >= LEVELS or fixed + exact + int(lengths.sum()) + 4 * count != len(view):
            raise CodecError("transform: payload's parts do not add up to its size.")
        bounds = (fixed + exact + np.concatenate(([0], np.cumsum(lengths)))).tolist()
        streams = [view[start:stop] for start, stop in pairwise(bounds)]
        escapes = np.frombuffer(view[bounds[-1] :], dtype="<i4").astype(np.int32)
        if bool((np.abs(escapes.astype(np.int64)) > LARGEST_VALUE).any()):
            raise CodecError("transform: an escape is beyond any value the encoder writes.")
        return cls(level, flags, view[fixed : fixed + exact], streams, escapes)


@compiled
def _quantise(values: NDArray[np.float32], symbols: Octets, escapes: NDArray[np.int32]) -> int:
    """Symbols of values given in steps; returns how many escapes it wrote."""
    found = 0
    for index in range(values.size):
        value = values[index]
        magnitude = np.int32(abs(value) + np.float32(ROUNDING))
        if magnitude < ZERO + 1:
            signed = magnitude if value >= np.float32(0) else -magnitude
            symbols[index] = np.uint8(signed + ZERO)
        else:
            symbols[index] = np.uint8(ESCAPE)
            escapes[found] = magnitude if value >= np.float32(0) else -magnitude
            found += 1
    return found


@compiled
def _dequantise(
    symbols: Octets,
    shifts: NDArray[np.float32],
    escapes: NDArray[np.int32],
    values: NDArray[np.float32],
) -> None:
    """Values in steps from symbols ``[positions, sent]``."""
    found = 0
    for row in range(symbols.shape[0]):
        for column in range(symbols.shape[1]):
            symbol = np.int32(symbols[row, column])
            value = np.float32(symbol - ZERO)
            if symbol == ESCAPE:
                value = np.float32(escapes[found])
                found += 1
            elif symbol == ZERO + 1:
                value += shifts[column]
            elif symbol == ZERO - 1:
                value -= shifts[column]
            values[row, column] = value

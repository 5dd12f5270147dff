"""Codec ``transform``: calibrated linear transform, uniform quantiser, shared entropy models.

Owns the codec: what is measured from what, and in which pieces; the artefact is
``transform_basis``, the bytes ``transform_payload``, the loops ``transform_kernels``. Keys are
turned back to before their rotary embedding, so the codec has to be told the absolute position of
every cached row: it is bound to positions (``TransformCodec.at``) before it is used, unlike the
other codecs. One step for all coefficients is reverse water-filling, since the basis scales them to
equal importance; coefficients that vary less than half a step are not sent.

Rows that equal the calibrated ones at their positions (the chat template's tokens) are measured
from those and cost next to nothing. The first four positions are attention sinks: far from all
other rows, and every later token feels an error in them. Where they differ from the calibrated ones
they travel as ``int8_groups``; coding them like all others made the KL divergence on 2,048-token
texts 2.4 to 3.5 times larger, at a ratio of 11. At fixed levels, whose steps do not include zero,
the calibrated rows are taken as they are: half a step beside them cost a KL divergence of 0.07.

Positions are coded in tiles, which with the groups of layers make independent pieces, one to a core
at a time. The encoder multiplies in bf16 where that is fast, so hosts may round a coefficient
differently; the decoder multiplies integers (``integer_product``), so that every host decodes the
same bits from the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from scout_core.codec import transform_kernels as kernels
from scout_core.codec.base import (
    CodecId,
    check_positions,
    checked_kv,
    geometry_of,
    not_finite,
)
from scout_core.codec.finite import is_finite
from scout_core.codec.fixed_widths import pack_rows, packed_bytes, unpack_rows
from scout_core.codec.groups import INT8_GROUPS
from scout_core.codec.integer_product import integer_product
from scout_core.codec.rans import decode_rows, encode_rows
from scout_core.codec.rotary import Rotation
from scout_core.codec.transform_basis import TransformBasis
from scout_core.codec.transform_payload import LEVELS, Piece, TransformPayload, tiles
from scout_core.codec.transform_plan import TransformPlan
from scout_core.codec.workers import run_each
from scout_core.errors import CodecError
from scout_core.geometry import KvGeometry

SINK_TOLERANCE_STEPS: Final = 1.0
"""Root mean square distance up to which a row counts as the calibrated sink."""
EXACT_SINKS: Final = 4
"""First positions whose rows are sent finer where they are not the calibrated ones."""
SINK_COEFFICIENTS: Final = 32
"""Coefficients of each stream, the most varying ones, that the distance is taken over."""
_NOT_CODED: Final = -1

Words = NDArray[np.uint16]


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
        """Binds a basis to a level and absolute positions.

        Levels 0 (finest) to 31 are entropy-coded, each 4 double the step; 32 + k are fixed, with
        (k + 1) / 8 bits an element.

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
        words = _words(exact)
        plan = self._plan
        flags = self._sink_flags(words, plan)
        foreign = self._foreign_sinks(flags)
        sink_rows = INT8_GROUPS.encode(exact[:, :, :, foreign]) if foreign else b""
        origin_of = self._origin_of(flags)
        origin_of[foreign] = _NOT_CODED
        ranges = tiles(exact.shape[3])

        def encode_piece(index: int) -> Piece:
            tile, stream = divmod(index, plan.streams)
            return self._encoded(words, stream, ranges[tile], origin_of)

        pieces = run_each(encode_piece, len(ranges) * plan.streams, exact.nbytes)
        return TransformPayload(self.level, flags, self.basis.tag, sink_rows, pieces).to_bytes()

    def decode(
        self, payload: bytes | memoryview, geometry: KvGeometry, positions: int
    ) -> torch.Tensor:
        """See ``KvCodec.decode``; the payload's level counts, not the codec's."""
        self._check(geometry, positions)
        view = memoryview(payload)
        level, flags, tag = TransformPayload.head_of(view)
        if tag != self.basis.tag:
            raise CodecError("transform: coded with another basis than this end's; attach again.")
        foreign = self._foreign_sinks(flags)
        sink_bytes = INT8_GROUPS.encoded_bytes(geometry, len(foreign)) if foreign else 0
        plan = self._plan if level == self.level else TransformPlan.of(self.basis, level)
        ranges = tiles(positions)
        parts = TransformPayload.parsed(view, sink_bytes, len(ranges) * plan.streams)
        origin_of = self._origin_of(flags)
        kv = torch.empty(geometry.shape(positions), dtype=torch.bfloat16)
        words = _words(kv)

        def decode_piece(index: int) -> None:
            tile, stream = divmod(index, plan.streams)
            self._decode_into(words, parts.pieces[index], (plan, stream), ranges[tile], origin_of)

        run_each(decode_piece, len(parts.pieces), kv.nbytes)
        if foreign:
            kv[:, :, :, foreign] = INT8_GROUPS.decode(parts.sink_rows, geometry, len(foreign))
        return kv

    def encoded_bytes(self, geometry: KvGeometry, positions: int) -> int:
        """See ``KvCodec.encoded_bytes``; the entropy of the models, as in ``expected_bytes``."""
        self._check(geometry, positions)
        overhead = TransformPayload.overhead_bytes(len(tiles(positions)) * self._plan.streams)
        return round(positions * self._plan.bits_per_position / 8) + overhead

    @cached_property
    def _plan(self) -> TransformPlan:
        return TransformPlan.of(self.basis, self.level)

    @cached_property
    def _rotations(self) -> tuple[Rotation, Rotation]:
        """For keys and, turning nothing, for values."""
        keys = Rotation.at(self.positions, self.basis.geometry.head_dim, self.basis.theta)
        return keys, Rotation(torch.ones_like(keys.cosines), torch.zeros_like(keys.sines))

    def _encoded(
        self, words: Words, stream: int, tile: slice, origin_of: NDArray[np.int64]
    ) -> Piece:
        """One stream of one tile.

        Raises:
            CodecError: a coefficient is too large.
        """
        plan = self._plan
        rows = self._rows(words, stream, tile, origin_of)
        forward = plan.forward[stream]
        values = (forward @ rows.to(forward.dtype).T).float().numpy()
        if plan.is_fixed:
            return self._packed(values, stream)
        symbols = np.empty(values.shape, dtype=np.uint8)
        scale = np.float32(1 / plan.step)
        found = int(kernels.quantise(values, scale, symbols))
        if found < 0:
            raise CodecError("transform: the cache is too large; send it as raw_bf16.")
        escapes = np.empty(found, dtype="<i4")
        if escapes.size:
            kernels.collect_escapes(values, scale, symbols, escapes)
        return Piece(escapes, encode_rows(symbols, plan.classes[stream], self.basis.coder))

    def _rows(
        self, words: Words, stream: int, tile: slice, origin_of: NDArray[np.int64]
    ) -> torch.Tensor:
        """float32 ``[positions of the tile, width]``, measured from their origins."""
        rows = np.empty((tile.stop - tile.start, self.basis.width), dtype=np.float32)
        kernels.gather_rows(words, self._place(stream, tile), self._frame(stream, origin_of), rows)
        return torch.from_numpy(rows)

    def _decode_into(
        self,
        words: Words,
        piece: Piece,
        planned: tuple[TransformPlan, int],
        tile: slice,
        origin_of: NDArray[np.int64],
    ) -> None:
        """Fills one stream's part of one tile.

        Raises:
            CodecError: the piece is not one.
        """
        plan, stream = planned
        kind, group = divmod(stream, self.basis.groups)
        count = tile.stop - tile.start
        values = self._coefficients(piece, plan, stream, count)
        if plan.is_fixed:
            values[:, origin_of[tile] > 0] = 0
        planes = np.empty((len(values), 2, count), dtype=np.int8)
        units = np.empty(count, dtype=np.float32)
        kernels.split_planes(values, planes, units)
        integers = self.basis.integers[kind, group, :, : len(values)]
        both = torch.from_numpy(planes).reshape(-1, 2 * count).T
        sums = integer_product(both, integers.T)
        kernels.scatter_rows(
            sums.numpy().reshape(2, count, -1),
            units,
            self._frame(stream, origin_of),
            words,
            self._place(stream, tile),
        )

    def _packed(self, values: NDArray[np.float32], stream: int) -> Piece:
        """A piece of fixed widths."""
        widths, steps = self._plan.classes[stream], self._plan.fixed_steps[stream]
        packed = np.empty(packed_bytes(widths, values.shape[1]), dtype=np.uint8)
        if not pack_rows(values, steps, widths, packed):
            raise CodecError("transform: the cache is too large; send it as raw_bf16.")
        return Piece(np.empty(0, dtype=np.int32), packed.tobytes())

    def _coefficients(
        self, piece: Piece, plan: TransformPlan, stream: int, count: int
    ) -> NDArray[np.float32]:
        """A piece's coefficients ``[sent, positions]``, in units of the basis' integers.

        Raises:
            CodecError: the piece is not one.
        """
        sent = plan.classes[stream]
        values = np.empty((sent.size, count), dtype=np.float32)
        if plan.is_fixed:
            if piece.escapes.size or len(piece.coded) != packed_bytes(sent, count):
                raise CodecError("transform: a piece of fixed widths has another size.")
            packed = np.frombuffer(piece.coded, dtype=np.uint8)
            unpack_rows(packed, plan.fixed_scales[stream], sent, values)
            return values
        symbols = decode_rows(piece.coded, sent, count, self.basis.coder)
        shifts, scales = plan.shifts[stream], plan.scales[stream]
        met = kernels.dequantise(symbols, shifts, scales, piece.escapes, values)
        if int(met) != piece.escapes.size:
            raise CodecError("transform: escapes announced and escapes sent differ.")
        return values

    def _frame(self, stream: int, origin_of: NDArray[np.int64]) -> tuple[NDArray[Any], ...]:
        """What the rows of a stream are turned by and measured from, for the loops."""
        kind, group = divmod(stream, self.basis.groups)
        rotation = self._rotations[kind]
        return (
            rotation.cosines.numpy(),
            rotation.sines.numpy(),
            self.basis.origins[kind, group].numpy(),
            origin_of,
        )

    def _place(self, stream: int, tile: slice) -> tuple[int, int, int]:
        """First layer, kind and first position of a piece."""
        kind, group = divmod(stream, self.basis.groups)
        return group * self.basis.geometry.layers // self.basis.groups, kind, tile.start

    def _check(self, geometry: KvGeometry, positions: int) -> None:
        if geometry != self.basis.geometry:
            raise CodecError(f"transform: calibrated for {self.basis.geometry}, got {geometry}.")
        if positions != self.positions.numel():
            raise CodecError(
                f"transform: bound to {self.positions.numel()} positions, got {positions}.",
            )

    @cached_property
    def _sinks(self) -> dict[int, int]:
        """Sink positions that this block holds, each with its row."""
        found: dict[int, int] = {}
        for sink in range(self.basis.sinks.shape[1]):
            rows = torch.nonzero(self.positions == sink).flatten()
            if rows.numel() == 1:
                found[sink] = int(rows)
        return found

    def _sink_flags(self, words: Words, plan: TransformPlan) -> int:
        """A bit for every sink row that is the calibrated one."""
        if not self._sinks:
            return 0
        rows = list(self._sinks.values())
        origin_of = np.zeros(self.positions.numel(), dtype=np.int64)
        origin_of[rows] = [1 + sink for sink in self._sinks]
        tile = slice(min(rows), max(rows) + 1)
        bound = (SINK_TOLERANCE_STEPS * plan.step) ** 2 * plan.streams * SINK_COEFFICIENTS
        distances = torch.zeros(len(rows))
        for stream in range(plan.streams):
            residuals = self._rows(words, stream, tile, origin_of)[
                [row - tile.start for row in rows]
            ]
            group = divmod(stream, self.basis.groups)
            coefficients = residuals @ self.basis.forward[group][:SINK_COEFFICIENTS].T
            distances += coefficients.square().sum(dim=1)
            if not bool((distances <= bound).any()):
                return 0
        near = (distances <= bound).tolist()
        return sum(1 << sink for sink, is_near in zip(self._sinks, near, strict=True) if is_near)

    def _foreign_sinks(self, flags: int) -> list[int]:
        """Rows of the first sinks present without their flag.

        Raises:
            CodecError: a flag for a row that this block does not have.
        """
        if flags & ~sum(1 << sink for sink in self._sinks):
            raise CodecError("transform: flags name rows that this block does not have.")
        return [
            index
            for sink, index in self._sinks.items()
            if sink < EXACT_SINKS and not flags >> sink & 1
        ]

    def _origin_of(self, flags: int) -> NDArray[np.int64]:
        """Which of the basis' origins each row is measured from."""
        origins = np.zeros(self.positions.numel(), dtype=np.int64)
        for sink, row in self._sinks.items():
            if flags >> sink & 1:
                origins[row] = 1 + sink
        return origins


def expected_bytes(basis: TransformBasis, level: int, positions: int, blocks: int) -> int:
    """Expected payload bytes of ``positions`` in ``blocks`` payloads of a tile at most.

    The entropy of the models: an estimate to the safe side, since a model is the average of
    coefficients that vary more and less. 21 texts took 11 to 15 % less with the bundled basis.
    """
    plan = TransformPlan.of(basis, level)
    overhead = TransformPayload.overhead_bytes(plan.streams)
    return round(positions * plan.bits_per_position / 8) + blocks * overhead


def _words(kv: torch.Tensor) -> Words:
    """A bf16 tensor's bits, shared."""
    return kv.view(torch.int16).numpy().view(np.uint16)

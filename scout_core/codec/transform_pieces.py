"""Pieces of the ``transform`` codec: one stream of one tile, from a cache to bytes and back.

Owns the way through rows, coefficients and symbols; the loops are ``transform_kernels``, the choice
of what is sent ``transform_plan``. The encoder multiplies in bf16 where that is fast, so hosts may
round a coefficient differently; the decoder multiplies integers (``integer_product``), so that
every host decodes the same bits from the same bytes. All positions of a tile go through one
product, and each is scaled by its grade.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from scout_core.codec import transform_kernels as kernels
from scout_core.codec.fixed_widths import pack_rows, packed_bytes, unpack_rows
from scout_core.codec.integer_product import integer_product
from scout_core.codec.rans import decode_runs, encode_runs
from scout_core.codec.rotary import Rotation
from scout_core.codec.transform_payload import Piece
from scout_core.codec.transform_plan import TransformPlan
from scout_core.codec.transform_runs import TileRuns
from scout_core.errors import CodecError

ORIGIN_NOT_CODED: Final = -1
"""In place of an origin: the row is sent in another way, and zero here."""

Words = NDArray[np.uint16]


@dataclass(frozen=True)
class PieceCoder:
    """Codes the streams of a block; ``words`` are always the bits of its whole bf16 cache."""

    plan: TransformPlan
    rotations: tuple[Rotation, Rotation]
    """Of the block's positions: the keys', and one that turns nothing, for values."""
    origin_of: NDArray[np.int64]
    """Which of the basis' origins each position is measured from, or ``ORIGIN_NOT_CODED``."""

    def encoded(self, words: Words, stream: int, runs: TileRuns) -> Piece:
        """One stream of one tile.

        Raises:
            CodecError: a coefficient is too large.
        """
        plan = self.plan
        rows = self.rows(words, stream, runs.order)
        if plan.is_fixed:
            return self._packed(rows, stream)
        models = plan.models(stream, runs.grades)
        values = self._products(rows, stream, len(models))
        symbols = np.empty(values.shape, dtype=np.uint8)
        scales = (1 / (plan.step * runs.factors)).astype(np.float32)
        coded = (models, runs.bounds)
        found = int(kernels.quantise(values, scales, coded, symbols))
        if found < 0:
            raise CodecError("transform: the cache is too large; send it as raw_bf16.")
        escapes = np.empty(found, dtype="<i4")
        if escapes.size:
            kernels.collect_escapes(values, scales, coded, symbols, escapes)
        return Piece(escapes, encode_runs(symbols, models, runs.bounds, plan.basis.coder))

    def decode_into(self, words: Words, piece: Piece, stream: int, runs: TileRuns) -> None:
        """Fills one stream's part of one tile.

        Raises:
            CodecError: the piece is not one.
        """
        kind, group = divmod(stream, self.plan.basis.groups)
        count = runs.order.size
        values = self._coefficients(piece, stream, runs)
        planes = np.empty((len(values), 2, count), dtype=np.int8)
        units = np.empty(count, dtype=np.float32)
        kernels.split_planes(values, planes, units)
        units *= runs.unit_factors
        integers = self.plan.basis.integers[kind, group, :, : len(values)]
        both = torch.from_numpy(planes).reshape(-1, 2 * count).T
        sums = integer_product(both, integers.T).numpy().reshape(2, count, -1)
        place = self._place(stream, runs.order)
        kernels.scatter_rows(sums, units, self._frame(stream), words, place)

    def rows(self, words: Words, stream: int, order: NDArray[np.int64]) -> torch.Tensor:
        """float32 ``[positions, width]`` of the block's positions ``order``, from their origins."""
        rows = np.empty((order.size, self.plan.basis.width), dtype=np.float32)
        kernels.gather_rows(words, self._place(stream, order), self._frame(stream), rows)
        return torch.from_numpy(rows)

    def _products(self, rows: torch.Tensor, stream: int, sent: int) -> NDArray[np.float32]:
        """The first coefficients of rows: ``[sent, positions]``."""
        forward = self.plan.forward[stream, :sent]
        return (forward @ rows.to(forward.dtype).T).float().numpy()

    def _packed(self, rows: torch.Tensor, stream: int) -> Piece:
        """A piece of fixed widths."""
        widths, steps = self.plan.widths[stream], self.plan.fixed_steps[stream]
        values = self._products(rows, stream, widths.size)
        packed = np.empty(packed_bytes(widths, values.shape[1]), dtype=np.uint8)
        if not pack_rows(values, steps, widths, packed):
            raise CodecError("transform: the cache is too large; send it as raw_bf16.")
        return Piece(np.empty(0, dtype=np.int32), packed.tobytes())

    def _coefficients(self, piece: Piece, stream: int, runs: TileRuns) -> NDArray[np.float32]:
        """A piece's coefficients ``[sent, positions]``, in units of the basis' integers, before
        their grade.

        Raises:
            CodecError: the piece is not one.
        """
        plan, count = self.plan, runs.order.size
        if plan.is_fixed:
            widths = plan.widths[stream]
            if piece.escapes.size or len(piece.coded) != packed_bytes(widths, count):
                raise CodecError("transform: a piece of fixed widths has another size.")
            packed = np.frombuffer(piece.coded, dtype=np.uint8)
            values = np.empty((widths.size, count), dtype=np.float32)
            unpack_rows(packed, plan.fixed_scales[stream], widths, values)
            values[:, self.origin_of[runs.order] > 0] = 0
            return values
        models = plan.models(stream, runs.grades)
        values = np.empty((len(models), count), dtype=np.float32)
        symbols = decode_runs(piece.coded, models, runs.bounds, plan.basis.coder)
        shifts, scales = plan.basis.shrinkage.numpy(), plan.scales[stream]
        coded = (models, runs.bounds)
        met = kernels.dequantise(symbols, coded, shifts, scales, piece.escapes, values)
        if int(met) != piece.escapes.size:
            raise CodecError("transform: escapes announced and escapes sent differ.")
        return values

    def _frame(self, stream: int) -> tuple[NDArray[Any], ...]:
        """What the rows of a stream are turned by and measured from, for the loops."""
        kind, group = divmod(stream, self.plan.basis.groups)
        rotation = self.rotations[kind]
        return (
            rotation.cosines.numpy(),
            rotation.sines.numpy(),
            self.plan.basis.origins[kind, group].numpy(),
            self.origin_of,
        )

    def _place(self, stream: int, order: NDArray[np.int64]) -> tuple[int, int, NDArray[np.int64]]:
        """First layer, kind and positions of a piece."""
        basis = self.plan.basis
        kind, group = divmod(stream, basis.groups)
        return group * basis.geometry.layers // basis.groups, kind, order

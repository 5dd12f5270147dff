"""Codec ``transform``: calibrated linear transform, uniform quantiser, shared entropy models.

Owns the codec: what is measured from what, and in which pieces; the artefact is
``transform_basis``, the bytes ``transform_payload``, a piece ``transform_pieces``. Keys are
turned back to before their rotary embedding, so the codec has to be told the absolute position of
every cached row: it is bound to positions (``TransformCodec.at``) before it is used, unlike the
other codecs. One step for all coefficients is reverse water-filling, since the basis scales them to
equal importance; coefficients that vary less than half a step are not sent. Positions are not of
equal importance: a grade makes the step of one coarser or finer (``transform_runs``).

Rows that equal the calibrated ones at their positions (the chat template's tokens) are measured
from those and cost next to nothing. The first four positions are attention sinks: far from all
other rows, and every later token feels an error in them. Where they differ from the calibrated ones
they travel as ``int8_groups``; coding them like all others made the KL divergence on 2,048-token
texts 2.4 to 3.5 times larger, at a ratio of 11. At fixed levels, whose steps do not include zero,
the calibrated rows are taken as they are: half a step beside them cost a KL divergence of 0.07.

Positions are coded in tiles, which with the groups of layers make independent pieces, one to a core
at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
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
from scout_core.codec.finite import is_finite
from scout_core.codec.groups import INT8_GROUPS
from scout_core.codec.rotary import Rotation
from scout_core.codec.transform_basis import TransformBasis
from scout_core.codec.transform_payload import (
    LEVELS,
    PayloadHead,
    Piece,
    TransformPayload,
    tiles,
)
from scout_core.codec.transform_pieces import ORIGIN_NOT_CODED, PieceCoder, Words
from scout_core.codec.transform_plan import FIRST_FIXED_LEVEL, TransformPlan
from scout_core.codec.transform_runs import (
    COARSEST_GRADE,
    Grades,
    TileRuns,
    checked_grades,
    grade_bytes,
)
from scout_core.codec.workers import run_each
from scout_core.errors import CodecError
from scout_core.geometry import KvGeometry

SINK_TOLERANCE_STEPS: Final = 1.0
"""Root mean square distance up to which a row counts as the calibrated sink."""
EXACT_SINKS: Final = 4
"""First positions whose rows are sent finer where they are not the calibrated ones."""
SINK_COEFFICIENTS: Final = 32
"""Coefficients of each stream, the most varying ones, that the distance is taken over."""


@dataclass(frozen=True)
class TransformCodec:
    """A basis, a level, and the absolute positions of the rows to code with their grades."""

    basis: TransformBasis
    level: int
    positions: torch.Tensor
    """int64 ``[positions]``."""
    grades: Grades | None = None
    """``[positions]``, levels coarser than the level; None: all are 0."""

    name = "transform"
    codec_id = CodecId.TRANSFORM
    is_fixed_rate = False

    @classmethod
    def at(
        cls,
        basis: TransformBasis,
        level: int,
        positions: Sequence[int],
        grades: Sequence[int] | NDArray[np.integer] | None = None,
    ) -> TransformCodec:
        """Binds a basis to a level and absolute positions.

        Levels 0 (finest) to 31 are entropy-coded, each 4 double the step; 32 + k are fixed, with
        (k + 1) / 8 bits an element.

        Args:
            grades: one a position, -8 (finest) to 7: how many levels coarser it is coded. Rows that
                are measured from calibrated ones, or sent in another way, have the coarsest,
                whatever is given. A decoder needs none, payloads have them.

        Raises:
            CodecError: level, positions or grades out of range, or grades at a fixed level.
        """
        if not 0 <= level < LEVELS:
            raise CodecError(f"Transform level must be in 0..{LEVELS - 1}, got {level}.")
        check_positions(len(positions))
        bound = torch.tensor(positions, dtype=torch.int64)
        if grades is None:
            return cls(basis, level, bound)
        if level >= FIRST_FIXED_LEVEL:
            raise CodecError("transform: fixed levels have no grades.")
        return cls(basis, level, bound, checked_grades(grades, len(positions)))

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
        origin_of[foreign] = ORIGIN_NOT_CODED
        coder = PieceCoder(plan, self._rotations, origin_of)
        grades = self.grades
        if grades is not None:  # nothing is left to send of the rows that another origin covers
            grades = np.where(origin_of == 0, grades, np.int8(COARSEST_GRADE))
        runs = [TileRuns.of(tile, grades) for tile in tiles(exact.shape[3])]

        def encode_piece(index: int) -> Piece:
            tile, stream = divmod(index, plan.streams)
            return coder.encoded(words, stream, runs[tile])

        pieces = run_each(encode_piece, len(runs) * plan.streams, exact.nbytes)
        head = PayloadHead(self.level, flags, self.basis.tag, grades)
        return TransformPayload(head, sink_rows, pieces).to_bytes()

    def decode(
        self, payload: bytes | memoryview, geometry: KvGeometry, positions: int
    ) -> torch.Tensor:
        """See ``KvCodec.decode``; the payload's level and grades count, not the codec's."""
        self._check(geometry, positions)
        view = memoryview(payload)
        head = PayloadHead.parsed(view, positions)
        if head.tag != self.basis.tag:
            raise CodecError("transform: coded with another basis than this end's; attach again.")
        foreign = self._foreign_sinks(head.flags)
        sink_bytes = INT8_GROUPS.encoded_bytes(geometry, len(foreign)) if foreign else 0
        plan = self._plan if head.level == self.level else TransformPlan.of(self.basis, head.level)
        runs = [TileRuns.of(tile, head.grades) for tile in tiles(positions)]
        parts = TransformPayload.parsed(view, head, sink_bytes, len(runs) * plan.streams)
        coder = PieceCoder(plan, self._rotations, self._origin_of(head.flags))
        kv = torch.empty(geometry.shape(positions), dtype=torch.bfloat16)
        words = _words(kv)

        def decode_piece(index: int) -> None:
            tile, stream = divmod(index, plan.streams)
            coder.decode_into(words, parts.pieces[index], stream, runs[tile])

        run_each(decode_piece, len(parts.pieces), kv.nbytes)
        if foreign:
            kv[:, :, :, foreign] = INT8_GROUPS.decode(parts.sink_rows, geometry, len(foreign))
        return kv

    def encoded_bytes(self, geometry: KvGeometry, positions: int) -> int:
        """See ``KvCodec.encoded_bytes``; the entropy of the models, as in ``expected_bytes``."""
        self._check(geometry, positions)
        overhead = TransformPayload.overhead_bytes(len(tiles(positions)) * self._plan.streams)
        if self.grades is None:
            return round(positions * self._plan.bits_per_position / 8) + overhead
        found, counts = np.unique(self.grades, return_counts=True)
        bits = sum(
            int(count) * self._plan.bits_at(int(grade))
            for grade, count in zip(found, counts, strict=True)
        )
        return round(bits / 8) + overhead + grade_bytes(positions)

    @cached_property
    def _plan(self) -> TransformPlan:
        return TransformPlan.of(self.basis, self.level)

    @cached_property
    def _rotations(self) -> tuple[Rotation, Rotation]:
        """For keys and, turning nothing, for values."""
        keys = Rotation.at(self.positions, self.basis.geometry.head_dim, self.basis.theta)
        return keys, Rotation(torch.ones_like(keys.cosines), torch.zeros_like(keys.sines))

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
        rows = np.array(list(self._sinks.values()), dtype=np.int64)
        origin_of = np.zeros(self.positions.numel(), dtype=np.int64)
        origin_of[rows] = [1 + sink for sink in self._sinks]
        coder = PieceCoder(plan, self._rotations, origin_of)
        bound = (SINK_TOLERANCE_STEPS * plan.step) ** 2 * plan.streams * SINK_COEFFICIENTS
        distances = torch.zeros(len(rows))
        for stream in range(plan.streams):
            residuals = coder.rows(words, stream, rows)
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

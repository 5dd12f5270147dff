"""Which coefficients are sent at a level, under which model, and what each symbol means.

Owns what follows from a basis and a level alone, so that it is computed once for many blocks, and
what grades make of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from scout_core.codec.fixed_widths import STEPS, allocated_widths
from scout_core.codec.rans import NOT_CODED, TOTAL
from scout_core.codec.transform_basis import CLASSES, TransformBasis, unbounded_classes_of
from scout_core.codec.transform_runs import LEVELS_PER_OCTAVE

FIRST_FIXED_LEVEL: Final = 32
"""From here on levels are eighths of a bit an element, from one eighth to ``LEVELS``'s eight."""
LOWEST_SENT_CLASS: Final = 4
"""Coefficients that vary less than half a step (class 4) are not sent. Against a quarter of a step
that leaves out a quarter of the arithmetic, and at equal size the error is 1 to 3 % smaller."""
BEYOND_ALL_CLASSES: Final = 100
"""Further from class 0 no grade brings a coefficient back."""
FINE_LEVELS: Final = 8
"""Below this level the encoder multiplies in float32: bf16 rounding would be felt."""

KEPT_PLANS: Final = 64
"""All levels of one basis."""


def step_at(basis: TransformBasis, level: int) -> float:
    """The quantiser's step at a level: each ``LEVELS_PER_OCTAVE`` levels double it."""
    return basis.finest_step * 2.0 ** (level / LEVELS_PER_OCTAVE)


@dataclass(frozen=True, eq=False)
class TransformPlan:
    """Streams are the keys' groups of layers, then the values'; lists have one entry a stream."""

    basis: TransformBasis
    level: int
    step: float
    classes: list[NDArray[np.int16]]
    """The entropy class of every coefficient of the group, descending, as if classes had no bounds;
    at fixed levels, its number of bits."""

    @classmethod
    @lru_cache(maxsize=KEPT_PLANS)
    def of(cls, basis: TransformBasis, level: int) -> TransformPlan:
        """The plan of a level; kept, for it serves every block that is coded so."""
        if level >= FIRST_FIXED_LEVEL:
            eighths = level - FIRST_FIXED_LEVEL + 1
            deviations = basis.deviations.reshape(-1).numpy()
            widths = allocated_widths(deviations, deviations.size * eighths // 8)
            rows = widths.reshape(-1, basis.width)
            return cls(basis, level, basis.finest_step, list(rows.astype(np.int16)))
        step = step_at(basis, level)
        classes = unbounded_classes_of(basis.deviations, step).reshape(-1, basis.width)
        bounded = classes.clamp(-BEYOND_ALL_CLASSES, BEYOND_ALL_CLASSES)
        return cls(basis, level, step, list(bounded.numpy().astype(np.int16)))

    @property
    def is_fixed(self) -> bool:
        """Whether coefficients have fixed numbers of bits, and no entropy coder."""
        return self.level >= FIRST_FIXED_LEVEL

    def models(self, stream: int, grades: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The entropy model of each sent coefficient at each grade: ``[sent, grades]``.

        Sent are the first coefficients of the group, as many as any grade needs; where a grade does
        not need one, it has ``NOT_CODED`` instead of a model.

        Args:
            grades: ascending, at least one.
        """
        classes = self.classes[stream]
        sent = int((classes >= LOWEST_SENT_CLASS + grades[0]).sum())
        graded = classes[:sent, None] - grades[None]
        bounded = np.minimum(graded, CLASSES - 1)
        return np.where(graded < LOWEST_SENT_CLASS, NOT_CODED, bounded).astype(np.uint8)

    @cached_property
    def widths(self) -> list[NDArray[np.uint8]]:
        """At fixed levels: the number of bits of each sent coefficient."""
        return [row[: int((row > 0).sum())].astype(np.uint8) for row in self.classes]

    @cached_property
    def fixed_steps(self) -> list[NDArray[np.float32]]:
        """At fixed levels: each sent coefficient's own step."""
        deviations = self.basis.deviations.reshape(-1, self.basis.width).numpy()
        table = np.array(STEPS, dtype=np.float32)
        return [deviations[i, : row.size] * table[row] for i, row in enumerate(self.widths)]

    @cached_property
    def fixed_scales(self) -> list[NDArray[np.float32]]:
        """At fixed levels: what a step adds to a row, per unit of the basis' integers."""
        scales = self.basis.scales.reshape(-1, self.basis.width).numpy()
        return [step * scales[i, : step.size] for i, step in enumerate(self.fixed_steps)]

    @property
    def streams(self) -> int:
        """Two kinds times groups."""
        return len(self.classes)

    @cached_property
    def forward(self) -> torch.Tensor:
        """``[streams, width, width]``: a row for each coefficient."""
        is_exact = self.level < FINE_LEVELS or not _has_bf16_products()
        whole = self.basis.forward if is_exact else self.basis.forward_bf16
        return whole.reshape(-1, self.basis.width, self.basis.width)

    @cached_property
    def scales(self) -> NDArray[np.float32]:
        """``[streams, width]``: what a step of each coefficient at grade 0 adds to a row, per unit
        of the basis' integers."""
        return self.basis.scales.reshape(-1, self.basis.width).numpy() * np.float32(self.step)

    @cached_property
    def bits_per_position(self) -> float:
        """Entropy of the models of all sent coefficients, or their fixed bits; at grade 0."""
        return self.bits_at(0)

    def bits_at(self, grade: int) -> float:
        """The same at a grade."""
        if self.is_fixed:
            return float(sum(int(widths.sum()) for widths in self.widths))
        used = self.basis.frequencies.astype(np.float64) / TOTAL
        entropies = -(used * np.log2(np.where(used > 0, used, 1.0))).sum(axis=1)
        grades = np.array([grade], dtype=np.int64)
        return float(sum(entropies[self.models(i, grades)].sum() for i in range(self.streams)))


def _has_bf16_products() -> bool:
    """Whether bf16 products are faster than float32 ones here."""
    processor: Any = torch.cpu
    return bool(processor._is_avx512_bf16_supported())

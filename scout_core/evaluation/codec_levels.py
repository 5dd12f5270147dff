"""Which levels of a transform basis stand in for 4-bit groups: measured on a model's texts.

Owns the choices that a calibration writes into its artefact and that senders follow: one level for
positions that are all coded alike, one for positions that are graded by a question. Knows no files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from scout_core.codec.transform_basis import TransformBasis
from scout_core.codec.transform_plan import FIRST_FIXED_LEVEL
from scout_core.engine import Engine
from scout_core.evaluation.codec_asked import (
    AskedContext,
    AskedRow,
    asked_rows,
    int4_way,
    transform_way,
)
from scout_core.evaluation.codec_contenders import named_codec, transformed
from scout_core.evaluation.codec_probe import CacheProbe, ProbeText
from scout_core.evaluation.codec_study import quality_rows

CANDIDATES: Final = tuple(range(6, 17))
INT4: Final = "int4_groups"
GRADED_CANDIDATES: Final = 9
"""Levels tried for graded positions, from the level for ungraded ones on."""
INT4_SHARE: Final = 0.35
"""Of the divergence of 4-bit groups: what a level may cost. Over answers to 638 questions, a level
at six tenths of it kept 98.3 % of F1 [96.8, 99.7], one at three tenths 99.4 % [98.0, 100.7]
(``scout bench codec --f1-data``, with the basis before the one that ships)."""


def with_int4_level(
    basis: TransformBasis,
    probe: CacheProbe,
    kinds: Sequence[Sequence[ProbeText]],
    on_progress: Callable[[str], None],
) -> TransformBasis:
    """The basis with the coarsest level that diverges by at most ``INT4_SHARE`` of int4 groups'.

    Args:
        kinds: texts of several kinds, such as short and long ones: it holds for each of them.
    """
    best = CANDIDATES[-1]
    for texts in kinds:
        compared = [named_codec(INT4), *(transformed(basis, level) for level in CANDIDATES)]
        int4, *levels = quality_rows(probe, "", texts, compared, on_progress)
        for level, row in zip(CANDIDATES, levels, strict=True):
            on_progress(f"level {level}: KL {row.kl:.5f} at {row.ratio:.2f}; {INT4} {int4.kl:.5f}")
        best = min(best, _coarsest(CANDIDATES, [row.kl for row in levels], INT4_SHARE * int4.kl))
    return replace(basis, int4_level=best)


def with_graded_level(
    basis: TransformBasis,
    probe: CacheProbe,
    engine: Engine,
    kinds: Sequence[Sequence[AskedContext]],
    on_progress: Callable[[str], None],
) -> TransformBasis:
    """The basis with the coarsest level at which graded positions cost answers no more than
    ``INT4_SHARE`` of what int4 groups do.

    Args:
        probe, engine: of the model.
        kinds: contexts of several kinds, such as short and long ones: it holds for each of them.
    """
    last = min(basis.int4_level + GRADED_CANDIDATES, FIRST_FIXED_LEVEL)
    levels = range(basis.int4_level, last)
    best = levels[-1] if kinds else basis.int4_level
    for contexts in kinds:
        ways = [int4_way(), *(transform_way(basis, level, graded=True) for level in levels)]
        int4, *rows = asked_rows(probe, engine, contexts, ways, on_progress)
        for row in (int4, *rows):
            on_progress(described(row))
        best = min(best, _coarsest(levels, [row.kl for row in rows], INT4_SHARE * int4.kl))
    return replace(basis, graded_level=best)


def described(row: AskedRow) -> str:
    """A row in one line."""
    other = "" if row.other_kl is None else f"; of another question {row.other_kl:.5f}"
    return (
        f"{row.name}, {row.contexts} contexts of {row.context_tokens:,} tokens: {row.ratio:.2f} "
        f"times smaller, KL {row.kl:.5f} [{row.kl_low:.5f}, {row.kl_high:.5f}]{other}"
    )


def _coarsest(levels: Sequence[int], divergences: Sequence[float], bound: float) -> int:
    """The coarsest level that diverges no more than the bound; the finest if all do."""
    good = [level for level, kl in zip(levels, divergences, strict=True) if kl <= bound]
    return max(good, default=levels[0])

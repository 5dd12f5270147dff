"""Which level of a transform basis stands in for 4-bit groups: measured on a model's texts.

Owns the choice that a calibration writes into its artefact and that senders follow. Knows no files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from scout_core.codec.transform_basis import TransformBasis
from scout_core.evaluation.codec_contenders import named_codec, transformed
from scout_core.evaluation.codec_probe import CacheProbe, ProbeText
from scout_core.evaluation.codec_study import quality_rows

CANDIDATES: Final = tuple(range(8, 17))
INT4: Final = "int4_groups"


def with_int4_level(
    basis: TransformBasis,
    probe: CacheProbe,
    kinds: Sequence[Sequence[ProbeText]],
    on_progress: Callable[[str], None],
) -> TransformBasis:
    """The basis with the coarsest level that diverges no more than int4 groups.

    Args:
        kinds: texts of several kinds, such as short and long ones: it holds for each of them.
    """
    best = CANDIDATES[-1]
    for texts in kinds:
        compared = [named_codec(INT4), *(transformed(basis, level) for level in CANDIDATES)]
        int4, *levels = quality_rows(probe, "", texts, compared, on_progress)
        for level, row in zip(CANDIDATES, levels, strict=True):
            on_progress(f"level {level}: KL {row.kl:.5f} at {row.ratio:.2f}; {INT4} {int4.kl:.5f}")
        good = [level for level, row in zip(CANDIDATES, levels, strict=True) if row.kl <= int4.kl]
        best = min(best, max(good, default=CANDIDATES[0]))
    return replace(basis, int4_level=best)

"""What the codec study compares: ours at several levels, and peers re-implemented from the papers.

Owns the list of contenders. Knows no model.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import torch

from scout_core.codec.base import KvCodec, geometry_of
from scout_core.codec.registry import CODECS, codec_by_name
from scout_core.codec.transform import TransformCodec
from scout_core.codec.transform_basis import TransformBasis
from scout_core.codec.transform_importance import grades_of
from scout_core.codec.transform_plan import FIRST_FIXED_LEVEL
from scout_core.codec.transform_runs import COARSEST_GRADE, FINEST_GRADE
from scout_core.errors import CodecError
from scout_core.evaluation.codec_coded import Code, Coded, Contender, ExactCache
from scout_core.evaluation.codec_kvtc import kvtc_peers
from scout_core.evaluation.codec_peers import peers
from scout_core.evaluation.codec_zstd import zstd_peers

FIXED_LEVELS: Final = (51, 54, 57)
"""Without entropy coder, at 2½, 2⅞ and 3¼ bits an element."""
TRANSFORM_LEVELS: Final = (0, 1, 2, 3, 6, 9, 11, 12, 13, 14, 15, 16, 18, 20)
FEW_FIXED_LEVELS: Final = (51,)
FEW_LEVELS: Final = (1, 2, 6, 9, 12, 13, 14, 15, 16, 18)
"""What a run measures that is not thorough."""
GRADED: Final = "transform_graded"
GRADED_LEVELS: Final = (-4, -2, 0, 2, 3, 6, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18, 20, 22)
FEW_GRADED_LEVELS: Final = (-2, 0, 3, 6, 10, 12, 14, 16, 18, 20)
"""Below 0: the finest level, all positions graded finer by so much."""


def contenders(basis: TransformBasis | None, *, thorough: bool) -> Iterator[Contender]:
    """Everything that is compared.

    Args:
        basis: the model's artefact; without it there are no transform levels, and no KVTC-like
            peer, which is calibrated on the same texts.
        thorough: every level, not only the few that draw the curve.
    """
    for codec in CODECS:
        yield named_codec(codec.name)
    if basis is not None:
        levels = {basis.int4_level, *(TRANSFORM_LEVELS if thorough else FEW_LEVELS)}
        for level in sorted(levels):
            yield transformed(basis, level)
        for level in GRADED_LEVELS if thorough else FEW_GRADED_LEVELS:
            yield graded(basis, level)
        for level in FIXED_LEVELS if thorough else FEW_FIXED_LEVELS:
            yield transformed(basis, level)
    yield from peers()
    yield from zstd_peers()
    if basis is not None:
        yield from kvtc_peers(basis)


def named_codec(name: str) -> Contender:
    """One of the codecs that need no calibration."""
    codec = codec_by_name(name)
    return Contender(name, name, "ours", _with(codec))


def transformed(basis: TransformBasis, level: int) -> Contender:
    """The transform at a level."""
    family = "transform_fixed" if level >= FIRST_FIXED_LEVEL else "transform"
    return Contender(f"{family}_{level:02d}", family, "ours", _transformed(basis, level))


def graded(basis: TransformBasis, level: int) -> Contender:
    """The transform at a level, its positions graded by the attention that they get from the last
    tokens of the context."""
    code = _graded(basis, level)
    return Contender(f"{GRADED}_{level:02d}", GRADED, "ours", code, needs_attention=True)


def _with(codec: KvCodec) -> Code:
    def code(cache: ExactCache) -> Coded:
        return coded_through(codec, cache.kv)

    return code


def _transformed(basis: TransformBasis, level: int) -> Code:
    def code(cache: ExactCache) -> Coded:
        return coded_through(TransformCodec.at(basis, level, cache.positions), cache.kv)

    return code


def _graded(basis: TransformBasis, level: int) -> Code:
    def code(cache: ExactCache) -> Coded:
        if cache.attention is None:
            raise CodecError(
                "Grades by attention need the attention; measure it, or leave them out."
            )
        grades = grades_of(cache.attention) + np.int8(min(level, 0))
        grades = np.clip(grades, FINEST_GRADE, COARSEST_GRADE)
        codec = TransformCodec.at(basis, max(level, 0), cache.positions, grades)
        return coded_through(codec, cache.kv)

    return code


def coded_through(codec: KvCodec, kv: torch.Tensor) -> Coded:
    """What a codec makes of a cache: encoded, and decoded again."""
    payload = codec.encode(kv)
    return Coded(codec.decode(payload, geometry_of(kv), kv.shape[3]), len(payload))

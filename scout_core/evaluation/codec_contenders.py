"""What the codec study compares: ours at several levels, and peers re-implemented from the papers.

Owns the list of contenders. Knows no model.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import torch

from scout_core.codec.base import KvCodec, geometry_of
from scout_core.codec.registry import CODECS
from scout_core.codec.transform import TransformCodec
from scout_core.codec.transform_basis import TransformBasis
from scout_core.evaluation.codec_coded import Code, Coded, Contender
from scout_core.evaluation.codec_kvtc import kvtc_peers
from scout_core.evaluation.codec_peers import peers
from scout_core.evaluation.codec_zstd import zstd_peers

FIXED_LEVELS: Final = (51, 54, 57)
"""Without entropy coder, at 2½, 2⅞ and 3¼ bits an element."""
TRANSFORM_LEVELS: Final = (0, 3, 6, 9, 11, 12, 13, 14, 15, 16, 18, 20)
FEW_FIXED_LEVELS: Final = (54,)
FEW_LEVELS: Final = (3, 9, 12, 14, 16, 20)
"""What a run measures that is not thorough."""
PROBE_LEVEL: Final = 14


def contenders(basis: TransformBasis | None, *, thorough: bool) -> Iterator[Contender]:
    """Everything that is compared.

    Args:
        basis: the model's artefact; without it there are no transform levels, and no KVTC-like
            peer, which is calibrated on the same texts.
        thorough: every level, not only the few that draw the curve.
    """
    for codec in CODECS:
        yield Contender(codec.name, codec.name, "ours", _with(codec))
    if basis is not None:
        for level in TRANSFORM_LEVELS if thorough else FEW_LEVELS:
            name = f"transform_{level:02d}"
            yield Contender(name, "transform", "ours", _transformed(basis, level))
        for level in FIXED_LEVELS if thorough else FEW_FIXED_LEVELS:
            name = f"transform_fixed_{level}"
            yield Contender(name, "transform_fixed", "ours", _transformed(basis, level))
    yield from peers()
    yield from zstd_peers()
    if basis is not None:
        yield from kvtc_peers(basis)


def _with(codec: KvCodec) -> Code:
    def code(kv: torch.Tensor, _first: int) -> Coded:
        payload = codec.encode(kv)
        return Coded(codec.decode(payload, geometry_of(kv), kv.shape[3]), len(payload))

    return code


def _transformed(basis: TransformBasis, level: int) -> Code:
    def code(kv: torch.Tensor, first: int) -> Coded:
        codec = TransformCodec.at(basis, level, range(first, first + kv.shape[3]))
        payload = codec.encode(kv)
        return Coded(codec.decode(payload, geometry_of(kv), kv.shape[3]), len(payload))

    return code

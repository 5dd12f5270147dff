"""Which codec an edge sends each KV mode with, by the rule that the daemons follow.

Owns that list for the quality study, and how a codec's name becomes a way through it. Where both
ends hold a transform for the cloud's model, ``kv_int4`` and ``kv_select`` go through it, at a
position's own grade where the question has been read before the bytes go: for ``kv_select``, whose
selection needs that; for ``kv_int4`` where the edge holds the cache already. So ``kv_int4`` is
sent in two ways, and its promise has to hold for both. (Where coding and not the link limits, an
edge may send ``kv_select`` ungraded or, on faster links, plain groups: both lose less.)
"""

from __future__ import annotations

from typing import Final

from scout_core.codec.registry import codec_for_mode
from scout_core.codec.transform_basis import TransformBasis
from scout_core.control.coding import TRANSFORMED
from scout_core.errors import CodecError
from scout_core.evaluation.codec_coded import Contender
from scout_core.evaluation.codec_contenders import GRADED, graded, named_codec, transformed
from scout_core.modes import Mode

NO_CODEC: Final = ""
"""Of ways that send no KV."""
TRANSFORM: Final = "transform"


def sent_codecs(mode: Mode, basis: TransformBasis | None) -> tuple[str, ...]:
    """Names of the codecs that a KV mode is sent with; as responses name them (``kv_codecs``).

    Args:
        basis: the transform that both ends hold for the cloud's model, or None.

    Raises:
        ModeUnavailableError: scout mode sends no KV.
    """
    plain = codec_for_mode(mode).name
    if basis is None or mode not in TRANSFORMED:
        return (plain,)
    if basis.graded_level <= basis.int4_level:
        return (TRANSFORM,)  # grades would take bytes and save none
    return (GRADED,) if mode is Mode.KV_SELECT else (TRANSFORM, GRADED)


def contender_of(codec: str, basis: TransformBasis | None) -> Contender:
    """The way through a codec of ``sent_codecs``, at the level that senders use.

    Raises:
        CodecError: no such codec, or it needs a basis and there is none.
    """
    if codec not in (TRANSFORM, GRADED):
        return named_codec(codec)
    if basis is None:
        raise CodecError(f"Codec {codec} needs a transform basis of the cloud's model.")
    if codec == GRADED:
        return graded(basis, basis.graded_level)
    return transformed(basis, basis.int4_level)

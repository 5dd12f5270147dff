"""Which codecs exist, by wire id, by name and by mode. Adding a codec is one line here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, assert_never

from scout_core.codec.base import CodecId, KvCodec
from scout_core.codec.embedded_bf16 import EMBEDDED_BF16
from scout_core.codec.groups import INT4_GROUPS, INT8_GROUPS
from scout_core.codec.lossless_bf16 import LosslessBf16Codec
from scout_core.codec.raw_bf16 import RawBf16Codec
from scout_core.codec.transform import TransformCodec
from scout_core.codec.transform_basis import TransformBasis
from scout_core.errors import CodecError, ModeUnavailableError
from scout_core.modes import Mode

CODECS: Final[tuple[KvCodec, ...]] = (
    RawBf16Codec(),
    INT8_GROUPS,
    INT4_GROUPS,
    LosslessBf16Codec(),
    EMBEDDED_BF16,
)

_BY_ID: Final = {int(codec.codec_id): codec for codec in CODECS}
_BY_NAME: Final = {codec.name: codec for codec in CODECS}


def codec_by_id(codec_id: int) -> KvCodec:
    """The codec that a block header names.

    Raises:
        CodecError: no codec has this id.
    """
    codec = _BY_ID.get(codec_id)
    if codec is None:
        raise CodecError(f"Unknown codec id {codec_id}; known: {sorted(_BY_ID)}. Upgrade this end?")
    return codec


def codec_of_block(
    codec_id: int, positions: Sequence[int], basis: TransformBasis | None
) -> KvCodec:
    """The codec that a block header names, for the cache at these absolute positions.

    Args:
        basis: the transform's, if this end holds one for the model.

    Raises:
        CodecError: no codec has this id, or it needs a basis and there is none.
    """
    if codec_id != CodecId.TRANSFORM:
        return codec_by_id(codec_id)
    if basis is None:
        raise CodecError("This end holds no transform basis for its model; send plain groups.")
    return TransformCodec.at(basis, basis.int4_level, positions)


def codec_by_name(name: str) -> KvCodec:
    """The codec that a person or a setting names.

    Raises:
        CodecError: no codec has this name.
    """
    codec = _BY_NAME.get(name)
    if codec is None:
        raise CodecError(f"Unknown codec {name!r}; known: {', '.join(sorted(_BY_NAME))}.")
    return codec


def codec_for_mode(mode: Mode, *, selected: str = "int8_groups") -> KvCodec:
    """The codec of a mode's KV blocks; ``selected`` names the one that kv_select uses.

    Raises:
        ModeUnavailableError: scout mode sends no KV.
        CodecError: ``selected`` names no codec.
    """
    match mode:
        case Mode.KV_BF16:
            return codec_by_name("raw_bf16")
        case Mode.KV_INT8:
            return codec_by_name("int8_groups")
        case Mode.KV_INT4:
            return codec_by_name("int4_groups")
        case Mode.KV_SELECT:
            return codec_by_name(selected)
        case Mode.SCOUT:
            raise ModeUnavailableError("Scout mode sends indices, no KV; it has no KV codec.")
        case _:
            assert_never(mode)

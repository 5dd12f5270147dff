"""The KV blocks that one payload sent, and what would make them finer.

Owns the sender's side of the ladder (``scout_core.codec.embedded_bf16``): which blocks could be
refined to which mode, and how many bytes that takes. It decides nothing (``steering`` does) and
encodes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from scout_core.codec.base import CodecId, KvCodec
from scout_core.codec.embedded_bf16 import EMBEDDED_BF16, is_above, refinement_bytes
from scout_core.codec.groups import INT4_GROUPS, INT8_GROUPS
from scout_core.codec.refinable import RefinableBound
from scout_core.control.sizes import BLOCK_HEADER_BYTES
from scout_core.geometry import KvGeometry
from scout_core.modes import Mode

RUNGS: Final[dict[Mode, KvCodec]] = {
    Mode.KV_INT4: INT4_GROUPS,
    Mode.KV_INT8: INT8_GROUPS,
    Mode.KV_BF16: EMBEDDED_BF16,
}
"""Modes that blocks can be refined to, lowest first, and the codec that they then have."""
EXACT: Final = (CodecId.RAW_BF16, CodecId.LOSSLESS_BF16, CodecId.EMBEDDED_BF16)


@dataclass(frozen=True, slots=True)
class SentBlock:
    """One KV block as the cloud holds it."""

    start: int
    count: int
    codec: KvCodec

    @property
    def stop(self) -> int:
        """The position after its last one."""
        return self.start + self.count


@dataclass(slots=True)
class SentKv:
    """The KV of one payload so far.

    Args:
        geometry: of the cloud's model.
    """

    geometry: KvGeometry
    _blocks: dict[int, SentBlock] = field(default_factory=dict[int, SentBlock])
    _bound: RefinableBound = field(init=False)
    _is_fixed: bool = False

    def __post_init__(self) -> None:
        self._bound = RefinableBound(self.geometry)

    def note(self, start: int, count: int, codec: KvCodec) -> None:
        """A KV block was made. One that cannot be refined keeps the whole where it is."""
        if codec.codec_id in EXACT:
            return
        if self._bound.admit(int(codec.codec_id), count):
            self._blocks[start] = SentBlock(start, count, codec)
        else:
            self._is_fixed = True

    def refined(self, block: SentBlock, mode: Mode) -> None:
        """A refinement of ``block`` to ``mode`` was made."""
        self._blocks[block.start] = replace(block, codec=RUNGS[mode])

    @property
    def lowest(self) -> Mode | None:
        """The mode of the coarsest blocks; None if nothing can be refined."""
        if self._is_fixed or not any(self.below(Mode.KV_BF16)):
            return None
        return Mode.KV_INT4 if any(self.below(Mode.KV_INT8)) else Mode.KV_INT8

    def below(self, mode: Mode) -> Iterator[SentBlock]:
        """The blocks that a refinement to ``mode`` has to reach, in order of position."""
        rung = int(RUNGS[mode].codec_id)
        return (
            block for block in self._blocks.values() if is_above(rung, int(block.codec.codec_id))
        )

    def bytes_to(self, mode: Mode) -> int:
        """Payload bytes of refining all those to ``mode``."""
        return sum(
            refinement_bytes(block.codec, RUNGS[mode], self.geometry, block.count)
            + BLOCK_HEADER_BYTES
            for block in self.below(mode)
        )

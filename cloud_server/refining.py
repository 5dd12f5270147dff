"""Payloads of KV blocks that may still be refined, as one session received them.

Owns which block a refinement may add to, and what it then is. It decodes nothing. A refinement is
the end of a payload whose beginning is here (``scout_core.codec.embedded_bf16``), so what comes out
is what direct coding at the higher level would have sent.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from scout_core.codec.embedded_bf16 import is_above, is_refinable
from scout_core.codec.refinable import RefinableBound
from scout_core.errors import PayloadError
from scout_core.geometry import KvGeometry
from scout_core.protocol.blocks import Block, BlockHeader


@dataclass(frozen=True, slots=True)
class _Held:
    """A block's payload so far."""

    count: int
    codec_id: int
    payload: bytes


@dataclass(slots=True)
class RefinableBlocks:
    """The lower levels of one session's KV blocks.

    Args:
        geometry: of the session's model.
        refined_positions, refinement_bytes: what refinements brought so far.
    """

    geometry: KvGeometry
    refined_positions: int = 0
    refinement_bytes: int = 0
    _held: dict[int, _Held] = field(default_factory=dict[int, _Held])
    _bound: RefinableBound = field(init=False)

    def __post_init__(self) -> None:
        self._bound = RefinableBound(self.geometry)

    def hold(self, header: BlockHeader, payload: bytes) -> None:
        """Keeps a KV block's payload if it can be refined."""
        if self._bound.admit(header.codec_id, header.count):
            self._held[header.start] = _Held(header.count, header.codec_id, payload)

    def refined(self, block: Block) -> bytes:
        """The whole payload of the block that a refinement belongs to.

        Raises:
            PayloadError: there is nothing that it refines.
        """
        header = block.header
        held = self._held.get(header.start)
        if held is None:
            raise PayloadError(
                f"A refinement came for positions from {header.start} on, but no block that can be "
                "refined began there: never sent, already exact, or more than is kept.",
                start=header.start,
            )
        if held.count != header.count:
            raise PayloadError(
                f"A refinement of {header.count} positions came for a block of {held.count}; "
                "refine whole blocks.",
                start=header.start,
            )
        if not is_above(header.codec_id, held.codec_id):
            raise PayloadError(
                f"Codec {header.codec_id} is no refinement of codec {held.codec_id}, which the "
                f"positions from {header.start} on have.",
                start=header.start,
            )
        return held.payload + block.body

    def accept(self, block: Block, payload: bytes) -> None:
        """Notes that a refinement was decoded; ``payload`` is what ``refined`` returned."""
        header = block.header
        self.refined_positions += header.count
        self.refinement_bytes += header.body_bytes
        if is_refinable(header.codec_id):
            self._held[header.start] = _Held(header.count, header.codec_id, payload)
        else:
            del self._held[header.start]

    def clear(self) -> None:
        """Frees the payloads."""
        self._held.clear()

    @property
    def summary(self) -> str:
        """What the response says; empty if nothing was refined."""
        if not self.refined_positions:
            return ""
        return (
            f"{self.refined_positions} positions refined by {self.refinement_bytes} bytes "
            "that add to what was sent"
        )

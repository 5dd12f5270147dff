"""How much of a payload's KV can be refined: a bound that both ends count alike.

Owns that count. It knows neither the blocks' bytes nor the ladder (``embedded_bf16``).
"""

from __future__ import annotations

from dataclasses import dataclass

from scout_core.codec.embedded_bf16 import is_refinable
from scout_core.geometry import KvGeometry
from scout_core.protocol.blocks import REFINABLE_BYTES


@dataclass(slots=True)
class RefinableBound:
    """The KV of one payload that can be refined so far.

    Args:
        geometry: of the model whose cache it is.
        covered_bytes: of bf16 cache, in whole blocks; up to ``REFINABLE_BYTES``.
    """

    geometry: KvGeometry
    covered_bytes: int = 0

    def admit(self, codec_id: int, positions: int) -> bool:
        """Whether the next KV block can be refined; if so, it is counted."""
        covered = self.covered_bytes + self.geometry.bf16_bytes(positions)
        if not is_refinable(codec_id) or covered > REFINABLE_BYTES:
            return False
        self.covered_bytes = covered
        return True

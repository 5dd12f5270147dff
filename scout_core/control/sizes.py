"""How many bytes each kind of payload weighs before it is encoded.

This module owns the estimate for planning; the codecs' real sizes may replace it (any object with
the three methods will do). It does not know tensors or files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Protocol

from scout_core.geometry import KvGeometry
from scout_core.modes import Mode

GROUP: Final = 32
"""Elements that share one scale in the group codecs."""
SCALE_BYTES: Final = 2
INDEX_OVERHEAD: Final = 1.05
INDEX_CONSTANT_BYTES: Final = 2
"""The index codec stays within 2 bytes + 5 % of log2 C(n, k) and below the bitmap."""
BLOCK_HEADER_BYTES: Final = 16
"""Upper bound of a payload block's header: kind, codec and three varints."""


class PayloadSizes(Protocol):
    """Planned bytes of payload parts."""

    def kv_bytes(self, mode: Mode, positions: int) -> int:
        """Bytes of the KV of ``positions`` positions in the codec of ``mode``."""
        ...

    def index_bytes(self, context_tokens: int, kept: int) -> int:
        """Upper bound of the coded selection of ``kept`` among ``context_tokens``."""
        ...

    def token_bytes(self, tokens: int) -> int:
        """Bytes of ``tokens`` packed token ids."""
        ...


def index_bound_bytes(context_tokens: int, kept: int) -> int:
    """Bytes within which any selection is coded: 2 + 5 % over log2 C(n, k), at most the bitmap."""
    log2_choices = (
        math.lgamma(context_tokens + 1)
        - math.lgamma(kept + 1)
        - math.lgamma(context_tokens - kept + 1)
    ) / math.log(2.0)
    coded = INDEX_CONSTANT_BYTES + math.ceil(INDEX_OVERHEAD * log2_choices / 8.0)
    return min(coded, INDEX_CONSTANT_BYTES + math.ceil(context_tokens / 8.0))


@dataclass(frozen=True, slots=True)
class GeometrySizes:
    """Sizes that follow from the shape alone: group codecs of 32 elements with bf16 scales.

    Attributes:
        geometry: the cloud model's KV shape.
        vocabulary: its vocabulary; token ids are packed to the bits it needs.
        select_mode: codec of the positions that kv_select sends.
    """

    geometry: KvGeometry
    vocabulary: int
    select_mode: Mode = Mode.KV_INT8

    def kv_bytes(self, mode: Mode, positions: int) -> int:
        elements = self.geometry.elements_per_token * positions
        groups = math.ceil(elements / GROUP)
        match mode:
            case Mode.KV_BF16:
                body = elements * 2
            case Mode.KV_INT8:
                body = elements + groups * SCALE_BYTES
            case Mode.KV_INT4:
                body = math.ceil(elements / 2) + groups * SCALE_BYTES
            case Mode.KV_SELECT:
                return self.kv_bytes(self.select_mode, positions)
            case Mode.SCOUT:
                return 0
        return body + BLOCK_HEADER_BYTES

    def index_bytes(self, context_tokens: int, kept: int) -> int:
        return index_bound_bytes(context_tokens, kept) + BLOCK_HEADER_BYTES

    def token_bytes(self, tokens: int) -> int:
        bits = max(1, (self.vocabulary - 1).bit_length())
        return math.ceil(tokens * bits / 8.0) + BLOCK_HEADER_BYTES

"""How much of a stream may cross a scheduled uplink before the cloud has read any of it.

Credit binds those who keep to it. One that floods is stopped by HTTP/2's own window, and a window
that grew to megabytes lets as much cross a queue that others wait in. Owns that one number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cloud_server.settings import LEARN, Capacity

ROUND_TRIP_S: Final = 0.2
"""Up to this round trip one stream can fill the uplink; longer paths need several."""
SMALLEST_BYTES: Final = 64 * 1024
"""The window HTTP/2 begins with, less one byte (RFC 9113, section 6.9.2)."""
LARGEST_BYTES: Final = 8 * 1024 * 1024
LEARNT_BYTES: Final = 1024 * 1024
"""Where the capacity is learnt: 40 Mbit/s at the round trip above."""


def stream_window_bytes(capacities: Mapping[str, Capacity]) -> int | None:
    """Of the fastest scheduled uplink; None where no uplink is scheduled, as nobody shares then."""
    if not capacities:
        return None
    return max(
        LEARNT_BYTES
        if figure == LEARN
        else min(max(round(figure * ROUND_TRIP_S), SMALLEST_BYTES), LARGEST_BYTES)
        for figure in capacities.values()
    )

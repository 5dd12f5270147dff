"""How much of a stream may cross a scheduled uplink before the cloud has read any of it.

Credit binds those who keep to it. One that floods is stopped by HTTP/2's own window, and a window
that grew to megabytes lets as much cross a queue that others wait in. Owns that one number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cloud_server.settings import LEARN, Capacity

GAIN: Final = 1.5
"""Over the bandwidth-delay product, as the credit window's: acks and credit come in steps."""
SMALLEST_BYTES: Final = 4 * 1024
"""It need not hold a message: for one that is being read grpc opens the window to its end."""
LARGEST_BYTES: Final = 8 * 1024 * 1024
LEARNT_BYTES_PER_S: Final = 5_000_000.0
"""Assumed where the capacity is learnt: 40 Mbit/s."""


def stream_window_bytes(capacities: Mapping[str, Capacity], round_trip_s: float) -> int | None:
    """What one stream needs to fill the fastest scheduled uplink.

    Args:
        capacities: of each scheduled uplink.
        round_trip_s: the longest over which one stream is to fill it.

    Returns:
        Bytes; None where no uplink is scheduled, as nobody shares then.
    """
    if not capacities:
        return None
    fastest = max(
        LEARNT_BYTES_PER_S if figure == LEARN else figure for figure in capacities.values()
    )
    return min(max(round(GAIN * fastest * round_trip_s), SMALLEST_BYTES), LARGEST_BYTES)

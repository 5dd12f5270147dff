"""How large a message may be that an agent sends.

grpc lets a message that is being read cross to its end, whatever its stream's window is, and reads
one ahead: an agent with credit can put two of them on a link beyond it. A larger one than this is
refused by its length. Owns that one number, of which agents are told when they register.
"""

from __future__ import annotations

from typing import Final

from cloud_server.settings import LEARN, CloudSettings
from cloud_server.stream_window import LEARNT_BYTES_PER_S
from scout_core.rpc.options import LEAST_MESSAGE_BYTES, MAX_MESSAGE_BYTES

MESSAGE_SPAN_S: Final = 0.02
"""Two messages then make others late by less than 5 % of a second. An edge that is not told of a
limit sends what its link carries in 5 ms, or 16 KiB where that is more."""


def largest_message_bytes(settings: CloudSettings) -> int:
    """What the slowest scheduled uplink carries in 20 ms, within bounds, unless it is configured.

    One figure for all agents: grpc has one for all that reach a port.
    """
    if settings.largest_message_bytes is not None:
        return settings.largest_message_bytes
    capacities = settings.uplink_capacity_bytes_per_s
    if not capacities:
        return MAX_MESSAGE_BYTES
    slowest = min(
        LEARNT_BYTES_PER_S if figure == LEARN else figure for figure in capacities.values()
    )
    return min(max(round(slowest * MESSAGE_SPAN_S), LEAST_MESSAGE_BYTES), MAX_MESSAGE_BYTES)

"""gRPC channel and server options as typed constants.

A misspelt option key is ignored by grpc in silence (STYLE, trap 11), so every key is spelt once,
here, and each has a test that observes its effect or its acceptance.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

MIB: Final = 1024 * 1024
MAX_CHUNK_BYTES: Final = MIB
"""Largest chunk a peer may send; ours have up to 512 KiB (STYLE, trap 15)."""
MAX_MESSAGE_BYTES: Final = 4 * MIB
"""Cap for every message in both directions; the sender fails first, before bytes cross the link."""

CONNECT_TIMEOUT_MS: Final = 5_000

IntegerOption = tuple[str, int]


class ChannelRole(Enum):
    """What a channel is for. The roles differ in one argument, so that each has a connection of
    its own and data never delays control (STYLE, trap 19)."""

    CONTROL = "control"
    DATA = "data"
    APPLICATION = "application"


def keepalive(interval_ms: int, timeout_ms: int) -> tuple[IntegerOption, ...]:
    """Transport pings (STYLE, trap 10). They only back up the application's own heartbeats and
    acks, which notice a dead path within 5 s; a ping waits behind data in the same connection."""
    return (
        ("grpc.keepalive_time_ms", interval_ms),
        ("grpc.keepalive_timeout_ms", timeout_ms),
        ("grpc.http2.ping_timeout_ms", timeout_ms),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.keepalive_permit_without_calls", 1),
    )


QUICK_KEEPALIVE: Final = keepalive(4_000, 4_000)
"""For connections that carry little: control."""
PATIENT_KEEPALIVE: Final = keepalive(10_000, 20_000)
"""For connections whose pings may wait behind seconds of payload on a slow uplink."""

FRAMING_BYTES: Final = 64
"""At most, around a probe's padding or a chunk's data: tags, lengths, offset, checksum."""
LEAST_MESSAGE_BYTES: Final = 4 * 1024 + FRAMING_BYTES
"""Smallest cap that a server may set: a chunk of 4 KiB; an open with all offers is smaller. grpc
reads a message ahead: a flood puts up to two of them on the link beside its window."""


def largest_chunk_bytes(message_bytes: int) -> int:
    """The most data that a message of so many bytes carries."""
    return min(message_bytes - FRAMING_BYTES, MAX_CHUNK_BYTES)


def size_limits(receive_bytes: int = MAX_MESSAGE_BYTES) -> tuple[IntegerOption, ...]:
    """A message above ``receive_bytes`` is refused when its length is known: of the rest no more
    crosses than the stream's window holds (``tests/integration/test_flood_window.py``)."""
    return (
        ("grpc.max_receive_message_length", receive_bytes),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    )


def channel_options(role: ChannelRole) -> list[tuple[str, int | str]]:
    """Options for a client channel of the given role."""
    pings = QUICK_KEEPALIVE if role is ChannelRole.CONTROL else PATIENT_KEEPALIVE
    options: list[tuple[str, int | str]] = [*size_limits(), *pings]
    options.append(("grpc.primary_user_agent", f"scout-{role.value}"))
    # Retries keep a copy of everything sent (trap 18); sessions resume by themselves.
    options.append(("grpc.enable_retries", 0))
    options.append(("grpc.use_local_subchannel_pool", 1))
    # Reconnect at once after a drop: the payload waits for it.
    options.append(("grpc.initial_reconnect_backoff_ms", 200))
    # In spite of its name the time that one attempt may take, handshake and first settings
    # included: three round trips, behind whatever waits in a slow link's queue.
    options.append(("grpc.min_reconnect_backoff_ms", CONNECT_TIMEOUT_MS))
    options.append(("grpc.max_reconnect_backoff_ms", 2_000))
    return options


def server_options(
    window_bytes: int | None = None, message_bytes: int = MAX_MESSAGE_BYTES
) -> list[tuple[str, int | str]]:
    """Options for a server; it must permit the pings its clients send (trap 11).

    Args:
        window_bytes: HTTP/2 window of a stream: what a client that ignores credit can put on the
            link before this end has read any of it. None lets grpc grow it to what it measures,
            which is megabytes on a link with a deep queue.
        message_bytes: largest message taken; of one that is being read the window does not hold
            back the rest.
    """
    window: list[tuple[str, int | str]] = []
    if window_bytes is not None:
        window = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", window_bytes)]
    return [
        *window,
        *size_limits(message_bytes),
        *PATIENT_KEEPALIVE,
        ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.so_reuseport", 0),
    ]

"""The largest message follows the slowest scheduled uplink."""

from __future__ import annotations

from typing import Any

import pytest

from cloud_server.message_limit import MESSAGE_SPAN_S, largest_message_bytes
from cloud_server.settings import LEARN, CloudSettings
from cloud_server.stream_window import LEARNT_BYTES_PER_S
from scout_core.daemon.settings import load_settings
from scout_core.rpc.options import LEAST_MESSAGE_BYTES, MAX_MESSAGE_BYTES

SLOW, FAST = 1e6, 1e7


def limit_with(**settings: Any) -> int:
    return largest_message_bytes(load_settings(CloudSettings, None, settings))


@pytest.mark.parametrize(
    ("capacities", "limit_bytes"),
    [
        ({}, MAX_MESSAGE_BYTES),
        ({"cell": SLOW, "site": FAST}, round(SLOW * MESSAGE_SPAN_S)),
        ({"cell": LEARN}, round(LEARNT_BYTES_PER_S * MESSAGE_SPAN_S)),
        ({"cell": LEARN, "site": SLOW}, round(SLOW * MESSAGE_SPAN_S)),
        ({"cell": 2e5}, LEAST_MESSAGE_BYTES),
        ({"cell": 1e12}, MAX_MESSAGE_BYTES),
    ],
)
def test_a_message_takes_little_time_of_the_slowest_uplink(
    capacities: dict[str, Any], limit_bytes: int
) -> None:
    assert limit_with(uplink_capacity_bytes_per_s=capacities) == limit_bytes


def test_a_configured_limit_holds() -> None:
    configured = {"largest_message_bytes": 20_480, "uplink_capacity_bytes_per_s": {"cell": 2e5}}
    assert limit_with(**configured) == 20_480

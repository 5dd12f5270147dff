"""The window of a stream follows the uplink that it crosses."""

from __future__ import annotations

from cloud_server.settings import LEARN
from cloud_server.stream_window import (
    LARGEST_BYTES,
    LEARNT_BYTES,
    ROUND_TRIP_S,
    SMALLEST_BYTES,
    stream_window_bytes,
)


def test_without_a_scheduled_uplink_the_window_is_left_to_grpc() -> None:
    assert stream_window_bytes({}) is None


def test_a_window_carries_the_fastest_uplink_over_a_long_round_trip_and_no_more() -> None:
    window = stream_window_bytes({"cell": 1_250_000.0, "site": 500_000.0})
    assert window == round(1_250_000 * ROUND_TRIP_S)


def test_windows_are_bounded_and_a_learnt_uplink_has_a_fixed_one() -> None:
    assert stream_window_bytes({"cell": 1_000.0}) == SMALLEST_BYTES
    assert stream_window_bytes({"cell": 1e12}) == LARGEST_BYTES
    assert stream_window_bytes({"cell": LEARN}) == LEARNT_BYTES

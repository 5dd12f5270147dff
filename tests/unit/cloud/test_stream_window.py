"""The window of a stream follows the uplink that it crosses."""

from __future__ import annotations

from cloud_server.settings import LEARN
from cloud_server.stream_window import (
    GAIN,
    LARGEST_BYTES,
    LEARNT_BYTES_PER_S,
    SMALLEST_BYTES,
    stream_window_bytes,
)


def test_without_a_scheduled_uplink_the_window_is_left_to_grpc() -> None:
    assert stream_window_bytes({}, 0.1) is None


def test_a_window_carries_the_fastest_uplink_over_the_round_trip_and_little_more() -> None:
    window = stream_window_bytes({"cell": 1_250_000.0, "site": 500_000.0}, 0.1)
    assert window == round(GAIN * 125_000)
    assert stream_window_bytes({"cell": 1_250_000.0}, 0.2) == round(GAIN * 250_000)


def test_windows_are_bounded_and_a_learnt_uplink_has_a_fixed_one() -> None:
    assert stream_window_bytes({"cell": 1_000.0}, 0.1) == SMALLEST_BYTES
    assert stream_window_bytes({"cell": 1e12}, 0.1) == LARGEST_BYTES
    assert stream_window_bytes({"cell": LEARN}, 0.1) == round(GAIN * LEARNT_BYTES_PER_S * 0.1)

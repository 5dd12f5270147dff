"""Acks to observations: pauses, credit and small bursts must not look like a slow link."""

from __future__ import annotations

import pytest

from scout_core.control.acks import AckTracker, AckWindow
from scout_core.control.samples import TransferSample
from scout_core.errors import LocalProtocolError

CHUNK = 65_536


def stream(
    tracker: AckTracker, *, rate: float, chunks: int, start_s: float, round_trip_s: float
) -> list[TransferSample]:
    """Everything is written at once; the link delivers at ``rate`` bytes per second."""
    base = tracker.in_flight_bytes
    assert base == 0
    offset = tracker._sent_bytes  # pyright: ignore[reportPrivateUsage]
    for index in range(chunks):
        tracker.on_sent(offset + (index + 1) * CHUNK, start_s)
    samples: list[TransferSample] = []
    for index in range(chunks):
        arrival_s = start_s + round_trip_s / 2 + (index + 1) * CHUNK / rate
        sample = tracker.on_ack(
            offset + (index + 1) * CHUNK, arrival_s + round_trip_s / 2, int(arrival_s * 1e6)
        )
        if sample is not None:
            samples.append(sample)
    return samples


def test_rate_comes_from_arrivals_not_from_writes() -> None:
    samples = stream(AckTracker(), rate=1e6, chunks=20, start_s=5.0, round_trip_s=0.04)
    assert len(samples) >= 5
    for sample in samples:
        assert sample.bytes_per_s == pytest.approx(1e6, rel=0.01)
        assert not sample.application_limited


def test_a_pause_between_bursts_is_in_no_window() -> None:
    tracker = AckTracker(round_trip_s=0.04)
    stream(tracker, rate=1e6, chunks=5, start_s=0.0, round_trip_s=0.04)
    samples = stream(tracker, rate=1e6, chunks=5, start_s=60.0, round_trip_s=0.04)
    assert samples
    for sample in samples:
        assert sample.bytes_per_s == pytest.approx(1e6, rel=0.02)


def test_a_single_chunk_on_a_slow_link_is_an_observation_when_the_round_trip_is_known() -> None:
    tracker = AckTracker(round_trip_s=0.05)
    tracker.on_sent(40_000, 1.0)
    sample = tracker.on_ack(40_000, 1.0 + 0.05 + 0.4)
    assert sample is not None
    assert sample.bytes_per_s == pytest.approx(100_000, rel=0.01)


def test_a_single_chunk_says_nothing_when_the_round_trip_is_unknown() -> None:
    tracker = AckTracker()
    tracker.on_sent(40_000, 1.0)
    assert tracker.on_ack(40_000, 1.45) is None
    assert tracker.round_trip_s == pytest.approx(0.45)


def credit_paced(gap_s: float, transit_s: float) -> list[TransferSample]:
    """Two chunks in flight, the next released every ``gap_s``; each takes ``transit_s``."""
    tracker = AckTracker(AckWindow(shortest_s=0.05), round_trip_s=0.02)
    samples: list[TransferSample] = []
    for index in range(2):
        tracker.on_sent((index + 1) * CHUNK, 0.0)
    for index in range(20):
        now = transit_s + index * gap_s
        tracker.on_credit_blocked()
        sample = tracker.on_ack((index + 1) * CHUNK, now)
        if sample is not None:
            samples.append(sample)
        tracker.on_sent((index + 3) * CHUNK, max(now, (index + 2) * gap_s))
    return samples


def test_credit_without_a_queue_marks_the_window_as_a_lower_bound() -> None:
    assert all(sample.application_limited for sample in credit_paced(0.02, 0.02)[1:])


def test_credit_with_a_queue_at_the_bottleneck_counts_fully() -> None:
    samples = credit_paced(0.06, 0.12)
    assert samples
    assert not any(sample.application_limited for sample in samples[1:])


def test_a_stall_ends_in_a_slow_window() -> None:
    tracker = AckTracker()
    for index in range(4):
        tracker.on_sent((index + 1) * CHUNK, 0.0)
    tracker.on_ack(CHUNK, 0.1)
    sample = tracker.on_ack(2 * CHUNK, 2.1)
    assert sample is not None
    assert sample.bytes_per_s == pytest.approx(CHUNK / 2.0)


def test_resume_starts_at_the_acknowledged_offset() -> None:
    tracker = AckTracker(resume_offset=10 * CHUNK)
    assert tracker.in_flight_bytes == 0
    tracker.on_sent(11 * CHUNK, 0.0)
    assert tracker.in_flight_bytes == CHUNK


def test_an_ack_of_unsent_bytes_is_refused() -> None:
    with pytest.raises(LocalProtocolError, match="only 0 sent"):
        AckTracker().on_ack(1, 0.0)


def test_reporting_a_chunk_twice_is_refused() -> None:
    tracker = AckTracker()
    tracker.on_sent(CHUNK, 0.0)
    with pytest.raises(LocalProtocolError, match="once, in order"):
        tracker.on_sent(CHUNK, 0.1)


def in_flight(round_trip_s: float = 0.04) -> AckTracker:
    """Two chunks were sent at 0 s, the first acknowledged at 0.1 s."""
    tracker = AckTracker(round_trip_s=round_trip_s)
    tracker.on_sent(CHUNK, 0.0)
    tracker.on_sent(2 * CHUNK, 0.0)
    tracker.on_ack(CHUNK, 0.1)
    return tracker


def test_silence_is_news_only_once_the_chunk_is_twice_overdue() -> None:
    tracker = in_flight()
    assert tracker.on_silence(0.2, expected_bytes_per_s=CHUNK * 2.0) is None
    assert tracker.on_silence(1.0, expected_bytes_per_s=CHUNK * 2.0) is None
    sample = tracker.on_silence(1.2, expected_bytes_per_s=CHUNK * 2.0)
    assert sample is not None
    assert sample.bytes_per_s == pytest.approx(CHUNK / 1.1)


def test_lasting_silence_says_that_nothing_arrives() -> None:
    tracker = in_flight()
    tracker.on_silence(1.2, CHUNK * 2.0)
    sample = tracker.on_silence(2.0, CHUNK * 1.0)
    assert sample is not None
    assert (sample.payload_bytes, sample.duration_s) == (0, pytest.approx(0.8))


def test_bytes_presumed_in_a_silence_are_not_counted_again() -> None:
    tracker = in_flight()
    tracker.on_silence(1.2, CHUNK * 2.0)
    assert tracker.on_ack(2 * CHUNK, 1.3) is None
    tracker.on_sent(3 * CHUNK, 2.0)
    sample = tracker.on_ack(3 * CHUNK, 2.54)
    assert sample is not None
    assert sample.bytes_per_s == pytest.approx(CHUNK / 0.5, rel=0.01)


def test_a_pause_of_the_sender_is_no_silence() -> None:
    tracker = in_flight()
    tracker.on_ack(2 * CHUNK, 0.2)
    assert tracker.on_silence(60.0, 1e6) is None


def test_busy_time_leaves_out_the_pauses_of_the_sender() -> None:
    tracker = in_flight()
    assert tracker.busy_s == 0.0
    tracker.on_ack(2 * CHUNK, 0.2)
    assert tracker.busy_s == pytest.approx(0.2)
    tracker.on_sent(3 * CHUNK, 5.0)
    tracker.on_ack(3 * CHUNK, 5.1)
    assert tracker.busy_s == pytest.approx(0.3)

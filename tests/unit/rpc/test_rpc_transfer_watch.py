"""What a session measures of its link, with chunks, acks and silence at literal times."""

from __future__ import annotations

import pytest

from scout_core.control.samples import TransferSample
from scout_core.rpc.transfer_watch import SILENCE_POLL_S, TransferWatch


class RecordingLink:
    """Believes in one rate and keeps what it is told."""

    def __init__(self, bytes_per_s: float) -> None:
        self.samples: list[TransferSample] = []
        self._bytes_per_s = bytes_per_s

    def observe(self, sample: TransferSample) -> None:
        self.samples.append(sample)

    def expected_bytes_per_s(self, now: float) -> float:
        del now
        return self._bytes_per_s


def test_the_transfer_lasts_from_the_first_chunk_to_the_last_ack() -> None:
    watch = TransferWatch(RecordingLink(1e6))
    assert watch.measurements.transfer_s == 0.0
    watch.chunk_sent(1_000, 1.0)
    watch.chunk_sent(3_000, 2.0)
    watch.acked(1_000, 0, 3.0)
    watch.acked(3_000, 0, 5.0)
    assert watch.measurements.transfer_s == 4.0
    assert watch.measurements.busy_s == 4.0


def test_the_peak_is_the_largest_backlog() -> None:
    watch = TransferWatch(RecordingLink(1e6))
    watch.chunk_sent(1_000, 1.0)
    watch.chunk_sent(3_000, 1.1)
    watch.acked(3_000, 0, 1.2)
    watch.chunk_sent(4_000, 1.3)
    assert watch.measurements.peak_unacked_bytes == 3_000


def test_acks_become_an_observation_of_the_link() -> None:
    link = RecordingLink(1e6)
    watch = TransferWatch(link, round_trip_s=0.01)
    for index in range(1, 5):
        watch.chunk_sent(50_000 * index, 0.0)
    for index in range(1, 5):
        watch.acked(50_000 * index, 50_000 * index, 0.05 * index)
    assert sum(sample.payload_bytes for sample in link.samples) > 0
    rates = [sample.payload_bytes / sample.duration_s for sample in link.samples]
    assert rates == pytest.approx([1e6] * len(rates), rel=0.3)


def test_silence_is_news_while_something_is_under_way() -> None:
    link = RecordingLink(1e6)
    watch = TransferWatch(link)
    assert watch.next_look(1.0) is None
    watch.note_silence(1.0)
    watch.chunk_sent(1_000, 1.0)
    assert watch.next_look(1.0) == 1.0 + SILENCE_POLL_S
    watch.note_silence(2.0)
    assert [sample.payload_bytes for sample in link.samples] == [1_000]


def test_a_resumed_stream_goes_on_from_what_the_cloud_has() -> None:
    watch = TransferWatch(RecordingLink(1e6))
    watch.chunk_sent(3_000, 1.0)
    watch.acked(1_000, 0, 1.1)
    watch.resumed(1_000)
    assert watch.measurements.resumes == 1
    assert watch.next_look(2.0) is None
    watch.chunk_sent(2_000, 2.0)
    assert watch.next_look(2.0) == 2.0 + SILENCE_POLL_S

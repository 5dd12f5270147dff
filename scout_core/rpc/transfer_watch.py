"""What one session learns of its link: from chunks sent, acks, and acks that do not come.

This module owns the session's measurements and hands observations on to whoever estimates the link.
It knows neither streams nor messages, and reads no clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from scout_core.control.acks import AckTracker
from scout_core.control.samples import TransferSample

SILENCE_POLL_S: Final = 0.1
"""How often a session with bytes under way asks what it means that no ack comes."""


class LinkObserver(Protocol):
    """What learns of the link from a session's acks (``scout_core.control.estimator``)."""

    def observe(self, sample: TransferSample) -> object:
        """Takes a goodput observation."""
        ...

    def expected_bytes_per_s(self, now: float) -> float:
        """What the link is believed to carry."""
        ...


@dataclass(slots=True)
class SessionMeasurements:
    """What one session measured; times are ``time.monotonic`` seconds."""

    uplink_bytes: int = 0
    downlink_bytes: int = 0
    first_sent_s: float | None = None
    last_acked_s: float | None = None
    resumes: int = 0
    """Streams that took the place of a lost one and were accepted."""
    busy_s: float = 0.0
    """Time in which payload was under way on the session's latest stream."""
    peak_unacked_bytes: int = 0
    """Largest backlog (sent − acked) so far; whoever wants it from some moment on sets it to 0."""

    @property
    def transfer_s(self) -> float:
        if self.first_sent_s is None or self.last_acked_s is None:
            return 0.0
        return self.last_acked_s - self.first_sent_s


class TransferWatch:
    """Watches one session's payload; times are ``time.monotonic`` seconds.

    Args:
        link: receives goodput observations.
        round_trip_s: smallest round trip known, 0 if unknown.
    """

    def __init__(self, link: LinkObserver, round_trip_s: float = 0.0) -> None:
        self.measurements = SessionMeasurements()
        self._link = link
        self._tracker = AckTracker(round_trip_s=round_trip_s)

    def expect_round_trip(self, round_trip_s: float) -> None:
        """Sets the smallest round trip known, before anything is sent."""
        self._tracker = AckTracker(round_trip_s=round_trip_s)

    def chunk_sent(self, end_offset: int, now: float) -> None:
        """A chunk that ends at ``end_offset`` goes out."""
        tracker, measured = self._tracker, self.measurements
        if measured.first_sent_s is None:
            measured.first_sent_s = now
        tracker.on_sent(end_offset, now)
        unacked_bytes = tracker.in_flight_bytes
        measured.peak_unacked_bytes = max(measured.peak_unacked_bytes, unacked_bytes)

    def credit_blocked(self) -> None:
        """Payload is ready and waits for credit."""
        self._tracker.on_credit_blocked()

    def acked(self, received_bytes: int, arrival_us: int, now: float) -> None:
        """The cloud has ``received_bytes``, the last of them at ``arrival_us`` of its clock."""
        self.measurements.last_acked_s = now
        sample = self._tracker.on_ack(received_bytes, now, arrival_us)
        self.measurements.busy_s = self._tracker.busy_s
        if sample is not None:
            self._link.observe(sample)

    def resumed(self, acked_bytes: int) -> None:
        """A new stream goes on from ``acked_bytes``."""
        self.measurements.resumes += 1
        self._tracker = AckTracker(
            resume_offset=acked_bytes, round_trip_s=self._tracker.round_trip_s or 0.0
        )

    def next_look(self, now: float) -> float | None:
        """When to ask ``note_silence`` again; None: nothing is under way."""
        return None if self._tracker.in_flight_bytes == 0 else now + SILENCE_POLL_S

    def note_silence(self, now: float) -> None:
        """A link that was believed fast and brings no ack is news before the ack comes."""
        if self._tracker.in_flight_bytes == 0:
            return
        sample = self._tracker.on_silence(now, self._link.expected_bytes_per_s(now))
        if sample is not None:
            self._link.observe(sample)

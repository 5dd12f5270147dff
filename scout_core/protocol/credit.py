"""Receiver-driven credit: a cumulative byte limit that the edge never exceeds.

``CreditLedger`` is the sender's book, ``CreditWindow`` the receiver's rule for how far to let it
go. The window holds what one round trip needs and little more:

    W = clamp(min(64 KiB, 0.25 s · goodput) + 1.5 · goodput · round trip, 16 KiB, 16 MiB)

(64 KiB until goodput is known; 1.75 instead of 1.5 while it still grows at the start) so that the
sender is never idle for want of credit while the backlog (sent − acked ≤ W) stays under two
bandwidth-delay products + 128 KiB. An allocation of the uplink paces the limit with a token
bucket; this is how a share is enforced without trusting the edge. This module knows neither
messages nor sessions.
"""

from __future__ import annotations

from dataclasses import dataclass

from scout_core.errors import CreditExceededError, LocalProtocolError, RemoteProtocolError
from scout_core.protocol.arrival_rate import ArrivalRate

KIB = 1024
MIB = 1024 * KIB

WINDOW_BASE_BYTES = 64 * KIB
WINDOW_BASE_S = 0.25
"""On a slow link the base shrinks to so much time of it: what waits in the bottleneck's queue also
delays the heartbeats that share it, and a queue of seconds looks like a dead path."""
WINDOW_BDP_GAIN = 1.5
WINDOW_STARTUP_GAIN = 1.75
"""Until goodput stops growing. Not more: the backlog stays within two products even then."""
STARTUP_GROWTH = 1.1
STARTUP_PATIENCE_SAMPLES = 3
"""Goodput has stopped growing after three samples below 1.1 times the best: one sample in two
still covers the time before the last growth of the window (BBR's rule, with its 1.25 lowered)."""
WINDOW_START_BYTES = 64 * KIB
WINDOW_FLOOR_BYTES = 16 * KIB
"""One small chunk; at 0.1 Mbit/s that is 1.3 s."""
WINDOW_MAX_BYTES = 16 * MIB
"""At 1.5 GB/s, which two processes of one host reach, half of it is the grant of 5 ms below."""

MIN_ROUND_TRIP_S = 0.01
"""Shortest round trip assumed. Between two event loops credit takes about 1 ms to come back even
when the wire takes none, and several on a busy host; the window must cover that too, or goodput and
window shrink in turn. On a link of 1 ms and 100 Mbit/s it costs 20 ms of queue."""
EARLY_SAMPLE_S = 0.001
"""On a path that is shorter than ``MIN_ROUND_TRIP_S`` goodput is first read off its own round trip,
down to this: at the pace of the first window 10 ms are 15 MB not sent between two processes."""
UNKNOWN_ROUND_TRIP_S = 0.05
"""Assumed when the peer has not measured one: a phone's uplink."""
MAX_ROUND_TRIP_S = 2.0
"""Longest round trip believed; the figure comes from the peer."""

GRANT_INTERVAL_S = 0.005
"""Fast links get one grant in about 5 ms, if the window allows: a message down costs the cloud more
than a chunk up, and a grant per chunk would halve the throughput between two processes."""
PACING_INTERVAL_S = 0.02
PACING_QUANTUM_MIN_BYTES = 4 * KIB
PACING_QUANTUM_MAX_BYTES = 256 * KIB
PACING_PATIENCE_S = 0.25
"""But no grant waits longer than this: a share that is just enough for a few indices comes at some
hundred bytes a second."""
PACING_BURST_S = 0.1
"""A late tick may catch up this much of the allocated rate."""


def credit_lag_s(rate_bytes_per_s: float, round_trip_s: float) -> float:
    """From the moment at which a paced byte is due to its arrival where nothing queues: a round
    trip, and what the grant lasts in which it comes.

    Args:
        rate_bytes_per_s: at which credit is paced.
        round_trip_s: as the sender measured it; 0: unknown.
    """
    patient_s = min(PACING_QUANTUM_MIN_BYTES / max(rate_bytes_per_s, 1.0), PACING_PATIENCE_S)
    return (round_trip_s or UNKNOWN_ROUND_TRIP_S) + max(PACING_INTERVAL_S, patient_s)


class CreditLedger:
    """The sender's book: ``acked ≤ sent ≤ limit``, none of which decreases within one stream.

    Attributes, to be read and not set:
        limit: bytes that may have been sent in total.
        sent: bytes sent in total.
        acked: bytes that the receiver has without a gap.
    """

    def __init__(self, limit_bytes: int = 0) -> None:
        if limit_bytes < 0:
            raise LocalProtocolError(f"Credit must not be negative, got {limit_bytes}.")
        self.limit = limit_bytes
        self.sent = 0
        self.acked = 0

    @property
    def available(self) -> int:
        """Bytes that may be sent now; never negative."""
        return self.limit - self.sent

    @property
    def unacked(self) -> int:
        """Bytes on their way: the backlog; never negative."""
        return self.sent - self.acked

    def grant(self, limit_bytes: int) -> None:
        """Raises:
        RemoteProtocolError: the limit would decrease.
        """
        if limit_bytes < self.limit:
            raise RemoteProtocolError(
                f"Credit decreased from {self.limit} to {limit_bytes}; it is cumulative."
            )
        self.limit = limit_bytes

    def record_sent(self, size_bytes: int) -> None:
        """Raises:
        LocalProtocolError: not a positive size, or more than ``available``.
        """
        if not 0 < size_bytes <= self.available:
            raise LocalProtocolError(
                f"Cannot send {size_bytes} bytes with a credit of {self.available}; wait for more."
            )
        self.sent += size_bytes

    def record_acked(self, received_bytes: int) -> None:
        """Raises:
        RemoteProtocolError: the ack goes backwards or covers bytes never sent.
        """
        if not self.acked <= received_bytes <= self.sent:
            raise RemoteProtocolError(
                f"Ack of {received_bytes} bytes is outside {self.acked}..{self.sent}."
            )
        self.acked = received_bytes

    def resume(self, offset: int, limit_bytes: int) -> None:
        """Starts again on a new stream at ``offset``, which everything sent before must cover.

        Raises:
            RemoteProtocolError: the offset is behind what was acked or was never sent, or the
                limit is below it.
        """
        if not self.acked <= offset <= self.sent:
            raise RemoteProtocolError(
                f"Cannot resume at {offset}; only {self.acked}..{self.sent} is possible."
            )
        if limit_bytes < offset:
            raise RemoteProtocolError(f"Credit {limit_bytes} is below the resume offset {offset}.")
        self.sent = self.acked = offset
        self.limit = limit_bytes


@dataclass(frozen=True, slots=True)
class CreditPolicy:
    """What a receiver allows a session.

    ``initial_bytes`` is announced at registration and may be used before the session is accepted;
    ``payload_limit_bytes`` is the most that is ever granted.
    """

    initial_bytes: int = WINDOW_START_BYTES
    payload_limit_bytes: int = 1 << 40

    def __post_init__(self) -> None:
        if not 0 <= self.initial_bytes <= WINDOW_MAX_BYTES:
            raise LocalProtocolError(
                f"initial_bytes must be in 0..{WINDOW_MAX_BYTES}, got {self.initial_bytes}."
            )
        if self.payload_limit_bytes < self.initial_bytes:
            raise LocalProtocolError("payload_limit_bytes must not be below initial_bytes.")


class CreditWindow:
    """The receiver's rule: how far the sender may go.

    Args:
        policy: initial credit and cap.
        round_trip_s: as the sender measured it; 0: unknown.

    Attributes, to be read and not set:
        limit: bytes granted in total.
        quantum_bytes: grants and acks smaller than this wait, so that each is worth its message.
    """

    def __init__(self, policy: CreditPolicy, round_trip_s: float) -> None:
        believed_s = round_trip_s if round_trip_s > 0.0 else UNKNOWN_ROUND_TRIP_S
        self._round_trip_s = min(max(believed_s, MIN_ROUND_TRIP_S), MAX_ROUND_TRIP_S)
        self._cap = policy.payload_limit_bytes
        self.limit = policy.initial_bytes
        self._received = 0
        self._arrivals = ArrivalRate(self._round_trip_s, max(believed_s, EARLY_SAMPLE_S))
        self._window = WINDOW_START_BYTES
        self.quantum_bytes = WINDOW_START_BYTES // 8
        self._pacer: _Pacer | None = None
        self._best_goodput = 0.0
        self._startup_samples_left = STARTUP_PATIENCE_SAMPLES

    @property
    def received(self) -> int:
        """Bytes received without a gap."""
        return self._received

    @property
    def window_bytes(self) -> int:
        """The present W."""
        return self._window

    @property
    def goodput_bytes_per_s(self) -> float:
        """The arrival rate that the window is built on; 0.0 until it is known."""
        return self._arrivals.bytes_per_s

    @property
    def is_paced(self) -> bool:
        """Whether an allocation sets the rate of grants."""
        return self._pacer is not None

    def check(self, end_offset: int) -> None:
        """Raises:
        CreditExceededError: a chunk that ends at ``end_offset`` is beyond the credit.
        """
        if end_offset > self.limit:
            raise CreditExceededError(
                f"A chunk ends at {end_offset}, beyond the credit of {self.limit}; "
                "send only what was granted.",
                end_offset=end_offset,
                credit_bytes=self.limit,
            )

    def arrived(self, received_bytes: int, now: float) -> None:
        """Notes the contiguous total; call it for every chunk.

        Raises:
            LocalProtocolError: the total goes backwards.
        """
        if received_bytes < self._received:
            raise LocalProtocolError("Received bytes cannot decrease.")
        self._received = received_bytes
        if self._arrivals.observe(received_bytes, now):
            self._resize()

    def allocate(
        self, rate_bytes_per_s: float | None, now: float, *, releases: bool = True
    ) -> None:
        """Paces grants at a rate from now on; 0 withholds them, None lifts the pacing.

        ``releases``: at 0 what has gathered is given out at once; else it waits for another rate.

        Raises:
            LocalProtocolError: the rate is negative or no number.
        """
        if rate_bytes_per_s is None:
            self._pacer = None
        elif self._pacer is None:
            self._pacer = _Pacer(rate_bytes_per_s, now)
        else:
            self._pacer.set_rate(rate_bytes_per_s, now, releases=releases)

    def restart(self) -> None:
        """A new stream carries on: the gap in time says nothing about the link."""
        self._arrivals.restart()

    def grant(self, now: float) -> int:
        """The cumulative limit to announce now; equal to the old one when it is too early."""
        room = self._room()
        if self._is_worth_granting(room):
            pacer = self._pacer
            self.limit += room if pacer is None else pacer.take(room, now)
        return self.limit

    def promised(self, now: float) -> int:
        """Bytes granted in total, and what has gathered to be granted: at rate 0 it still comes,
        unless it was not to be released."""
        if self._pacer is None or self._pacer.withholds:
            return self.limit
        return self.limit + min(max(self._room(), 0), self._pacer.gathered(now))

    def next_grant_at(self, now: float) -> float | None:
        """When ``grant`` will give more without another arrival; None: not before one."""
        if self._pacer is None:
            return None
        room = self._room()
        if not self._is_worth_granting(room):
            return None
        return self._pacer.ready_at(room, now)

    def _room(self) -> int:
        return min(self._received + self._window, self._cap) - self.limit

    def _is_worth_granting(self, room: int) -> bool:
        """A full quantum, or the last bytes under the cap, or the sender has nothing left."""
        return room >= self.quantum_bytes or (
            room > 0 and (self.limit + room == self._cap or self._received == self.limit)
        )

    def _resize(self) -> None:
        goodput = self._arrivals.bytes_per_s
        if goodput >= STARTUP_GROWTH * self._best_goodput:
            self._best_goodput = goodput
            self._startup_samples_left = STARTUP_PATIENCE_SAMPLES
        elif self._startup_samples_left > 0:
            self._startup_samples_left -= 1
        gain = WINDOW_STARTUP_GAIN if self._startup_samples_left else WINDOW_BDP_GAIN
        base = min(float(WINDOW_BASE_BYTES), WINDOW_BASE_S * goodput)
        window = int(base + gain * goodput * self._round_trip_s)
        self._window = min(max(window, WINDOW_FLOOR_BYTES), WINDOW_MAX_BYTES)
        per_interval = int(goodput * GRANT_INTERVAL_S)
        self.quantum_bytes = min(max(per_interval, self._window // 8), self._window // 2)


class _Pacer:
    """A token bucket over granted bytes."""

    def __init__(self, rate_bytes_per_s: float, now: float) -> None:
        self._tokens = 0.0
        self._at = now
        self._rate = 0.0
        self._burst = 0.0
        self._releases = True
        self.set_rate(rate_bytes_per_s, now)

    def set_rate(self, rate_bytes_per_s: float, now: float, *, releases: bool = True) -> None:
        """Changes the rate; what has gathered at the old one stays, and at 0 is given out at once:
        a share that hops between sessions ten times a second must not lose a quantum each time.
        ``releases`` False: not at 0."""
        if not rate_bytes_per_s >= 0.0:
            raise LocalProtocolError(
                f"An allocated rate must not be negative, got {rate_bytes_per_s}; 0 withholds "
                "credit."
            )
        self._refill(now)
        self._rate = rate_bytes_per_s
        self._releases = releases
        patient = min(PACING_QUANTUM_MIN_BYTES, int(rate_bytes_per_s * PACING_PATIENCE_S))
        quantum = max(int(rate_bytes_per_s * PACING_INTERVAL_S), patient, 1)
        self._quantum = min(quantum, PACING_QUANTUM_MAX_BYTES)
        burst = max(rate_bytes_per_s * PACING_BURST_S, float(self._quantum))
        self._burst = max(burst, self._tokens)

    @property
    def withholds(self) -> bool:
        """Whether what has gathered waits for another rate."""
        return self._rate == 0.0 and not self._releases

    def gathered(self, now: float) -> int:
        """Whole bytes in the bucket."""
        self._refill(now)
        # Half a byte of slack: a tick exactly at ``ready_at`` must not fail by rounding.
        return int(self._tokens + 0.5)

    def take(self, wanted: int, now: float) -> int:
        """Takes up to ``wanted`` bytes, or nothing while less than a quantum has gathered."""
        gathered = self.gathered(now)
        if gathered < min(wanted, self._quantum) or self.withholds:
            return 0
        taken = min(wanted, gathered)
        self._tokens -= taken
        return taken

    def ready_at(self, wanted: int, now: float) -> float | None:
        """When ``take`` will give something; None: not at this rate."""
        if self._rate == 0.0:
            return now if self._tokens >= 1.0 and not self.withholds else None
        missing = min(wanted, self._quantum) - self._tokens
        return max(self._at + missing / self._rate, now)

    def _refill(self, now: float) -> None:
        self._tokens = min(self._tokens + (now - self._at) * self._rate, self._burst)
        self._at = now

"""One payload over one link in virtual time: acks observed, mode switched on the way.

Owns how a transfer unfolds on a rate schedule (the closed form of the testbed's twin for a single
flow: integral of the rate, plus the round trip), what the estimator sees of it, and when the
downgrade rule is asked. It does not know policies or workloads.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from scout_core.control.downgrade import Keep, Progress, Remainder, decide
from scout_core.control.estimator import GoodputEstimator
from scout_core.control.samples import TransferSample
from scout_core.modes import Mode
from scout_core.testbed.schedule import BITS_PER_BYTE, RateSchedule

ACK_WINDOW_S: Final = 0.1
"""Acks are gathered to observations of this length, and the switch rule is asked as often."""
CREDIT_BYTES: Final = 256 * 1024
"""Bytes sent ahead of the acks; they cross in the old mode whatever is decided."""
LONGEST_OBSERVED_S: Final = 6.0
"""A transfer is watched no longer: the next request arrives then."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way of sending the whole payload, for the switch rule.

    Attributes:
        mode, retention, payload_bytes, quality: as in the offer.
        encode_s: edge seconds of encoding, overlapped.
        fixed_s: cloud seconds after the last byte, whatever the share sent this way.
        share_s: cloud seconds in proportion to the share sent this way.
    """

    mode: Mode
    retention: float
    payload_bytes: float
    quality: float
    encode_s: float
    fixed_s: float
    share_s: float = 0.0

    def remainder(self, share: float, done_quality: float) -> Remainder:
        """What is left if ``share`` of the positions is still to be sent."""
        return Remainder(
            mode=self.mode,
            retention=self.retention,
            payload_bytes=round(self.payload_bytes * share),
            quality=done_quality + share * self.quality,
            encode_s=self.encode_s * share,
            cloud_s=self.fixed_s + self.share_s * share,
        )


@dataclass(frozen=True, slots=True)
class Sent:
    """How a transfer went.

    Attributes:
        finished_at_s: last byte acknowledged less the round trip, on the link's clock.
        payload_bytes: what crossed the link.
        quality: expected, given the shares sent in each mode.
        cloud_s: predicted cloud seconds after the last byte.
        mode: the last one.
        switches: how often the mode changed.
    """

    finished_at_s: float
    payload_bytes: float
    quality: float
    cloud_s: float
    mode: Mode
    switches: int


class Watcher:
    """Feeds what a sender would see of the link to its estimator."""

    def __init__(self, schedule: RateSchedule, estimator: GoodputEstimator) -> None:
        self._schedule = schedule
        self.estimator = estimator

    def watch(self, from_s: float, to_s: float) -> bool:
        """Observations of a busy link; returns whether any carried information."""
        informative = False
        clock_s = from_s
        while clock_s < to_s - 1e-9:
            end_s = min(clock_s + ACK_WINDOW_S, to_s)
            delivered = self._schedule.bits_between(clock_s, end_s) / BITS_PER_BYTE
            sample = TransferSample(int(delivered), end_s - clock_s, False, end_s)
            informative |= self.estimator.observe(sample)
            clock_s = end_s
        return informative


class SwitchingTransfer:
    """A KV transfer whose remaining blocks may change their mode."""

    def __init__(
        self, schedule: RateSchedule, watcher: Watcher, ways: tuple[Way, ...], target: float
    ) -> None:
        self._schedule = schedule
        self._watcher = watcher
        self._ways = ways
        self._target = target

    def run(self, way: Way, start_s: float, due_at_s: float, round_trip_s: float) -> Sent:
        """Sends from ``start_s`` on.

        Args:
            way: how it begins; one of the ways given.
            start_s: first byte, on the link's clock.
            due_at_s: when the first token is due.
            round_trip_s: of the link.
        """
        clock_s, switched_at_s = start_s, start_s
        backlog, share, sent, done_quality, switches = 0.0, 1.0, 0.0, 0.0, 0
        while True:
            if clock_s < due_at_s and share > 0.0:
                ahead = min(CREDIT_BYTES, way.payload_bytes * share) if clock_s > start_s else 0.0
                ahead_share = ahead / way.payload_bytes if way.payload_bytes else share
                rest = max(0.0, share - ahead_share)
                quality = done_quality + ahead_share * way.quality
                chosen = self._choose(
                    Progress(
                        current=way.remainder(rest, quality),
                        alternatives=tuple(
                            other.remainder(rest, quality)
                            for other in self._ways
                            if other is not way
                        ),
                        backlog_bytes=round(backlog + ahead),
                        time_left_s=due_at_s - clock_s,
                        since_switch_s=clock_s - switched_at_s,
                        target_probability=self._target,
                    ),
                    clock_s,
                    round_trip_s,
                )
                if chosen is not None and rest > 0.0:
                    backlog, share, done_quality = backlog + ahead, rest, quality
                    way, switched_at_s, switches = chosen, clock_s, switches + 1
            left = backlog + way.payload_bytes * share
            finish_s = self._schedule.finish_time(clock_s, left)
            end_s = min(finish_s, clock_s + ACK_WINDOW_S)
            if clock_s - start_s < LONGEST_OBSERVED_S:
                self._watcher.watch(clock_s, end_s)
            if finish_s <= end_s or clock_s >= due_at_s:
                return Sent(
                    finish_s,
                    sent + left,
                    done_quality + share * way.quality,
                    way.fixed_s + way.share_s * share,
                    way.mode,
                    switches,
                )
            delivered = self._schedule.bits_between(clock_s, end_s) / BITS_PER_BYTE
            sent += delivered
            of_backlog = min(delivered, backlog)
            backlog -= of_backlog
            moved = (delivered - of_backlog) / way.payload_bytes if way.payload_bytes else share
            done_quality += min(moved, share) * way.quality
            share = max(0.0, share - moved)
            clock_s = end_s

    def _choose(self, progress: Progress, clock_s: float, round_trip_s: float) -> Way | None:
        forecast = self._watcher.estimator.forecast(clock_s, round_trip_s)
        verdict = decide(progress, forecast)
        if isinstance(verdict, Keep):
            return None
        wanted = verdict.remainder
        return next(
            way
            for way in self._ways
            if (way.mode, way.retention) == (wanted.mode, wanted.retention)
        )


def plain_transfer(schedule: RateSchedule, way: Way, start_s: float) -> Sent:
    """A transfer that keeps its mode."""
    finish_s = schedule.finish_time(start_s, way.payload_bytes)
    return Sent(finish_s, way.payload_bytes, way.quality, way.fixed_s + way.share_s, way.mode, 0)


def without_switches(way: Way) -> Way:
    """The way with its proportional cost made fixed, for a transfer of the whole."""
    return replace(way, fixed_s=way.fixed_s + way.share_s, share_s=0.0)

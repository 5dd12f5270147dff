"""One payload over one link in virtual time: acks observed, mode switched on the way.

Owns how a transfer unfolds on a rate schedule (the closed form of the testbed's twin for a single
flow: integral of the rate, plus the round trip), what the estimator sees of it, and when the
downgrade rule is asked. It does not know policies or workloads.
"""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(slots=True)
class _Under:
    """A transfer under way.

    Attributes:
        way: how the rest is being sent.
        share: positions not yet sent this way, as a share of all.
        backlog: bytes of earlier modes that still wait in front.
        sent: bytes that have crossed.
        done_quality: quality earned by the positions that are sent or in the backlog.
    """

    way: Way
    clock_s: float
    switched_at_s: float
    share: float = 1.0
    backlog: float = 0.0
    sent: float = 0.0
    done_quality: float = 0.0
    switches: int = 0

    @property
    def left(self) -> float:
        """Bytes still to cross."""
        return self.backlog + self.way.payload_bytes * self.share

    def move(self, delivered: float, to_s: float) -> None:
        """So many bytes crossed, the backlog first."""
        of_backlog = min(delivered, self.backlog)
        moved = min((delivered - of_backlog) / self.way.payload_bytes, self.share)
        self.sent += delivered
        self.backlog -= of_backlog
        self.done_quality += moved * self.way.quality
        self.share -= moved
        self.clock_s = to_s

    def switch(self, way: Way, ahead: float) -> None:
        """The rest goes another way; ``ahead`` bytes of the old one were sent already."""
        ahead_share = ahead / self.way.payload_bytes
        self.backlog += ahead
        self.done_quality += ahead_share * self.way.quality
        self.share -= ahead_share
        self.way, self.switched_at_s = way, self.clock_s
        self.switches += 1

    def finished(self, at_s: float) -> Sent:
        """The rest crosses without further switches."""
        return Sent(
            finished_at_s=at_s,
            payload_bytes=self.sent + self.left,
            quality=self.done_quality + self.share * self.way.quality,
            cloud_s=self.way.fixed_s + self.way.share_s * self.share,
            mode=self.way.mode,
            switches=self.switches,
        )


class SwitchingTransfer:
    """A KV transfer whose remaining blocks may change their mode.

    Args:
        schedule: the link.
        watcher: its observer.
        ways: all ways of sending; the rest may go any of them.
        target: probability of meeting the deadline.
    """

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
        under = _Under(way, start_s, start_s)
        while under.clock_s < start_s + LONGEST_OBSERVED_S:
            self._reconsider(under, start_s, due_at_s, round_trip_s)
            finish_s = self._schedule.finish_time(under.clock_s, under.left)
            end_s = min(finish_s, under.clock_s + ACK_WINDOW_S)
            self._watcher.watch(under.clock_s, end_s)
            if finish_s <= end_s:
                return under.finished(finish_s)
            delivered = self._schedule.bits_between(under.clock_s, end_s) / BITS_PER_BYTE
            under.move(delivered, end_s)
        return under.finished(self._schedule.finish_time(under.clock_s, under.left))

    def _reconsider(
        self, under: _Under, start_s: float, due_at_s: float, round_trip_s: float
    ) -> None:
        way = under.way
        whole = way.payload_bytes * under.share
        ahead = min(CREDIT_BYTES, whole) if under.clock_s > start_s else 0.0
        rest = under.share - ahead / way.payload_bytes
        if rest <= 0.0:
            return
        quality = under.done_quality + (under.share - rest) * way.quality
        progress = Progress(
            current=way.remainder(rest, quality),
            alternatives=tuple(
                other.remainder(rest, quality) for other in self._ways if other is not way
            ),
            backlog_bytes=round(under.backlog + ahead),
            time_left_s=due_at_s - under.clock_s,
            since_switch_s=under.clock_s - under.switched_at_s,
            target_probability=self._target,
        )
        verdict = decide(progress, self._watcher.estimator.forecast(under.clock_s, round_trip_s))
        if isinstance(verdict, Keep):
            return
        wanted = (verdict.remainder.mode, verdict.remainder.retention)
        under.switch(
            next(other for other in self._ways if (other.mode, other.retention) == wanted), ahead
        )


def plain_transfer(schedule: RateSchedule, way: Way, start_s: float) -> Sent:
    """A transfer that keeps its mode."""
    finish_s = schedule.finish_time(start_s, way.payload_bytes)
    return Sent(finish_s, way.payload_bytes, way.quality, way.fixed_s + way.share_s, way.mode, 0)

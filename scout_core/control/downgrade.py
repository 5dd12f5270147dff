"""Whether a transfer under way should go on, change its mode, or leave the rest to the cloud.

Blocks are position-major, so every received prefix is a valid prefix cache: the remaining positions
may be coded in a cheaper (or, on a link faster than forecast, a better) mode, and at worst the
cloud prefills them from tokens. Nothing received is thrown away.

When all is sent and time is left, what was sent coarsely may be refined: a refinement is only the
difference to a better mode (``scout_core.codec.embedded_bf16``).

This module owns that choice. It does not know how blocks are encoded or sent.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from scout_core.control.forecast import TransferForecast
from scout_core.modes import Mode

KEEP_MARGIN: Final = 0.15
"""The current mode may fall this far below the target before it is left: forecasts jitter."""
UPGRADE_MARGIN: Final = 0.03
"""A better mode must exceed the target by this much before it is taken."""
LOST: Final = 0.001
"""Below this chance the deadline is lost, and what counts is to be late by little."""
SOONER_FACTOR: Final = 0.7
"""A late transfer is switched only for something that takes less than this share of the time."""
SETTLE_S: Final = 0.2
"""No second switch within this time, unless the deadline is in danger."""


@dataclass(frozen=True, slots=True)
class Remainder:
    """The rest of the payload, coded in one way.

    Attributes:
        mode: how the remaining blocks are coded; ``Mode.SCOUT`` means: as tokens, the cloud
            prefills them on top of the received prefix.
        retention: fraction of the remaining positions kept.
        payload_bytes: bytes of the remaining blocks.
        quality: expected quality of the whole answer if the rest is sent like this.
        encode_s: edge seconds to encode them, overlapped with the transfer.
        cloud_s: cloud seconds from the last byte to the first token.
    """

    mode: Mode
    retention: float
    payload_bytes: int
    quality: float
    encode_s: float
    cloud_s: float


@dataclass(frozen=True, slots=True)
class Progress:
    """A transfer under way.

    Attributes:
        current: the remainder as it is being sent.
        alternatives: the other ways of sending it; the tokens finish among them.
        backlog_bytes: bytes sent and not yet acknowledged; they go first, whatever is decided.
        time_left_s: seconds until the first token is due; negative when it is late.
        since_switch_s: seconds since the transfer began or last switched.
        target_probability: of meeting the deadline.
    """

    current: Remainder
    alternatives: tuple[Remainder, ...]
    backlog_bytes: int
    time_left_s: float
    since_switch_s: float
    target_probability: float = 0.9


@dataclass(frozen=True, slots=True)
class Keep:
    """Go on."""

    probability: float


@dataclass(frozen=True, slots=True)
class SwitchTo:
    """Code the remaining blocks like this.

    ``cause`` is ``deadline_forecast`` or ``link_recovered`` (proto Switch.cause).
    """

    remainder: Remainder
    probability: float
    cause: str


@dataclass(frozen=True, slots=True)
class FinishWithTokens:
    """Send the remaining positions as tokens; the cloud prefills them."""

    remainder: Remainder
    probability: float


Verdict = Keep | SwitchTo | FinishWithTokens

CAUSE_DEADLINE: Final = "deadline_forecast"
CAUSE_RECOVERED: Final = "link_recovered"


def chance(remainder: Remainder, progress: Progress, forecast: TransferForecast) -> float:
    """Probability that the first token is in time if the rest is sent like this."""
    slack_s = progress.time_left_s - remainder.cloud_s
    if slack_s <= 0.0 or remainder.encode_s > slack_s:
        return 0.0
    return forecast.probability_within(progress.backlog_bytes + remainder.payload_bytes, slack_s)


def decide(progress: Progress, forecast: TransferForecast) -> Verdict:
    """What to do with the rest of the payload.

    Downgrades when the current mode's chance falls clearly below the target and something better
    placed exists; upgrades when a better mode is clearly safe. If the deadline is lost whatever is
    done, the way that is soonest over is taken, which mostly ends in tokens.
    """
    probability = chance(progress.current, progress, forecast)
    if probability >= progress.target_probability:
        return _upgrade(progress, forecast, probability)
    if probability >= progress.target_probability - KEEP_MARGIN:
        return Keep(probability)
    chances = [
        (alternative, chance(alternative, progress, forecast))
        for alternative in progress.alternatives
    ]
    safe = [pair for pair in chances if pair[1] >= progress.target_probability]
    if safe:
        return _switch(*_best(safe), CAUSE_DEADLINE)
    likeliest = max(chances, key=lambda pair: pair[1], default=None)
    if likeliest is None:
        return Keep(probability)
    if max(likeliest[1], probability) < LOST:
        return _soonest(progress, forecast)
    if likeliest[1] <= probability:
        return Keep(probability)
    return _switch(*likeliest, CAUSE_DEADLINE)


def refine(sent: Progress, forecast: TransferForecast) -> Remainder | None:
    """What to add to a payload that is all sent, or None: nothing is worth the time left.

    The best that is as safe as an upgrade has to be. What is in time without it stays in time.

    Args:
        sent: ``current`` is what was sent, of which nothing remains; ``alternatives`` are the ways
            to refine it, ``payload_bytes`` being the refinement's alone.
    """
    least = min(1.0, sent.target_probability + UPGRADE_MARGIN)
    safe = [
        (finer, chance(finer, sent, forecast))
        for finer in sent.alternatives
        if finer.quality > sent.current.quality
    ]
    safe = [pair for pair in safe if pair[1] >= least]
    return _best(safe)[0] if safe else None


def _soonest(progress: Progress, forecast: TransferForecast) -> Verdict:
    rate = forecast.median_bytes_per_s

    def time_s(remainder: Remainder) -> float:
        transfer_s = (progress.backlog_bytes + remainder.payload_bytes) / rate
        return max(transfer_s, remainder.encode_s) + remainder.cloud_s

    quickest = min(progress.alternatives, key=time_s)
    if time_s(quickest) > SOONER_FACTOR * time_s(progress.current):
        return Keep(0.0)
    return _switch(quickest, 0.0, CAUSE_DEADLINE)


def _upgrade(progress: Progress, forecast: TransferForecast, probability: float) -> Verdict:
    if progress.since_switch_s < SETTLE_S:
        return Keep(probability)
    least = min(1.0, progress.target_probability + UPGRADE_MARGIN)
    better = [
        (alternative, chance(alternative, progress, forecast))
        for alternative in progress.alternatives
        if alternative.quality > progress.current.quality
    ]
    safe = [pair for pair in better if pair[1] >= least]
    return _switch(*_best(safe), CAUSE_RECOVERED) if safe else Keep(probability)


def _best(pairs: Iterable[tuple[Remainder, float]]) -> tuple[Remainder, float]:
    return max(pairs, key=lambda pair: (pair[0].quality, -pair[0].payload_bytes))


def _switch(remainder: Remainder, probability: float, cause: str) -> Verdict:
    if remainder.mode is Mode.SCOUT:
        return FinishWithTokens(remainder, probability)
    return SwitchTo(remainder, probability, cause)

"""Made rate schedules: constant, steps, sine, outages, a Markov chain, and radio-like fading.

This module owns the shapes and their parameters; randomness is seeded and local. Recorded rates
come from ``traces``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import assert_never

from scout_core.errors import SettingsError
from scout_core.testbed.schedule import RateSchedule

DEMO_STEPS_MBPS = (100.0, 20.0, 3.0, 0.3)

MARKOV_STATES_MBPS = (0.3, 3.0, 10.0, 20.0, 50.0, 100.0)
"""The six link states. The source paper speaks of a six-state chain without giving states or
matrix in a form we could obtain; these are ours: from a link on which only indices pass to one on
which KV pays off (DESIGN §2), roughly geometric."""
MARKOV_TRANSITIONS = (
    (0.85, 0.15, 0.00, 0.00, 0.00, 0.00),
    (0.15, 0.70, 0.15, 0.00, 0.00, 0.00),
    (0.00, 0.15, 0.70, 0.15, 0.00, 0.00),
    (0.00, 0.00, 0.15, 0.70, 0.15, 0.00),
    (0.00, 0.00, 0.00, 0.15, 0.70, 0.15),
    (0.00, 0.00, 0.00, 0.00, 0.15, 0.85),
)
"""Row i: probabilities of the next state after one second in state i. Ours: moves to neighbours
only, as fading does from second to second; symmetric, so every state has the same share of time."""
MARKOV_DWELL_S = 1.0


class RadioClass(Enum):
    """A technology whose fading ``radio`` imitates."""

    THREE_G = "3g"
    LTE = "lte"
    FIVE_G = "5g"


@dataclass(frozen=True, slots=True)
class Fading:
    """Log-normal first-order autoregression at one-second steps, with dead spells."""

    median_mbps: float
    log_deviation: float
    correlation: float
    dead_fraction: float
    dead_spell_s: float


def fading(radio_class: RadioClass) -> Fading:
    """Medians over the downlink development traces of a class, one-second means, rounded.

    17 traces of 3G, 16 of LTE, 28 of 5G (DESIGN §10); dead is below a twentieth of the trace's
    mean. Uplinks are steadier (5G 49 Mbit/s with deviation 0.48): these are the harder half.
    """
    match radio_class:
        case RadioClass.THREE_G:
            return Fading(1.4, 0.68, 0.81, 0.0, 1.0)
        case RadioClass.LTE:
            return Fading(12.0, 0.68, 0.82, 0.014, 1.4)
        case RadioClass.FIVE_G:
            return Fading(100.0, 1.03, 0.84, 0.086, 2.0)
        case _:
            assert_never(radio_class)


def constant(mbps: float) -> RateSchedule:
    """The same rate for ever."""
    return RateSchedule.constant(mbps)


def steps(
    rates_mbps: Sequence[float] = DEMO_STEPS_MBPS, step_s: float = 5.0, *, loop: bool = False
) -> RateSchedule:
    """One rate after another, ``step_s`` each; then again, or the last one for ever."""
    return RateSchedule.from_spans([(step_s, mbps) for mbps in rates_mbps], loop=loop)


def sine(
    mean_mbps: float, swing_mbps: float, period_s: float, *, sample_s: float = 0.1
) -> RateSchedule:
    """``mean + swing · sin``, sampled in the middle of spans of about ``sample_s``; loops.

    Raises:
        SettingsError: the swing exceeds the mean, or the period holds no sample.
    """
    if not 0 <= swing_mbps <= mean_mbps or not 0 < sample_s <= period_s:
        raise SettingsError(
            "A sine needs 0 ≤ swing ≤ mean and 0 < sample ≤ period, got "
            f"mean {mean_mbps}, swing {swing_mbps}, sample {sample_s}, period {period_s}."
        )
    count = max(round(period_s / sample_s), 1)
    angles = (2 * math.pi * (index + 0.5) / count for index in range(count))
    rates = (mean_mbps + swing_mbps * math.sin(angle) for angle in angles)
    return RateSchedule.from_spans([(period_s / count, max(r, 0.0)) for r in rates], loop=True)


def outages(mbps: float, every_s: float, outage_s: float) -> RateSchedule:
    """A constant rate that is dead for the last ``outage_s`` of every ``every_s``; loops.

    Raises:
        SettingsError: the outage is not shorter than the interval.
    """
    if not 0 < outage_s < every_s:
        raise SettingsError(f"Outages need 0 < outage < interval, got {outage_s} s in {every_s} s.")
    return RateSchedule.from_spans([(every_s - outage_s, mbps), (outage_s, 0.0)], loop=True)


def markov(duration_s: float, seed: int, *, loop: bool = True) -> RateSchedule:
    """A walk on the six states, started in a random one; ``MARKOV_TRANSITIONS`` each second."""
    random = Random(seed)  # noqa: S311 - a simulation, not a secret
    state = random.randrange(len(MARKOV_STATES_MBPS))
    spans: list[tuple[float, float]] = []
    for _ in range(_sample_count(duration_s, MARKOV_DWELL_S)):
        spans.append((MARKOV_DWELL_S, MARKOV_STATES_MBPS[state]))
        weights = MARKOV_TRANSITIONS[state]
        state = random.choices(range(len(MARKOV_STATES_MBPS)), weights)[0]
    return RateSchedule.from_spans(spans, loop=loop)


def radio(
    radio_class: RadioClass, duration_s: float, seed: int, *, loop: bool = True
) -> RateSchedule:
    """Fading like a technology's, in one-second samples: synthetic, for tests and demos."""
    shape = fading(radio_class)
    random = Random(seed)  # noqa: S311 - a simulation, not a secret
    innovation = shape.log_deviation * math.sqrt(1 - shape.correlation**2)
    level = random.gauss(0.0, shape.log_deviation)
    # A dead spell ends with probability `leave` each second and begins so that the share holds.
    leave = min(1.0 / shape.dead_spell_s, 1.0)
    enter = leave * shape.dead_fraction / (1 - shape.dead_fraction)
    is_dead = False
    spans: list[tuple[float, float]] = []
    for _ in range(_sample_count(duration_s, 1.0)):
        is_dead = random.random() >= leave if is_dead else random.random() < enter
        spans.append((1.0, 0.0 if is_dead else shape.median_mbps * math.exp(level)))
        level = shape.correlation * level + random.gauss(0.0, innovation)
    return RateSchedule.from_spans(spans, loop=loop)


def _sample_count(duration_s: float, sample_s: float) -> int:
    count = round(duration_s / sample_s)
    if count < 1:
        raise SettingsError(f"A schedule needs at least {sample_s} s, got {duration_s} s.")
    return count

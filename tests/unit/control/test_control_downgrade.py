"""Switching in mid-transfer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from scout_core.control.downgrade import (
    FinishWithTokens,
    Keep,
    Progress,
    Remainder,
    SwitchTo,
    decide,
    refine,
)
from scout_core.control.forecast import TransferForecast
from scout_core.modes import Mode

Steady = Callable[[float], TransferForecast]

BF16 = Remainder(Mode.KV_BF16, 1.0, 4_000_000, 1.0, 0.0, 0.05)
INT4 = Remainder(Mode.KV_INT4, 1.0, 1_100_000, 0.95, 0.0, 0.05)
TOKENS = Remainder(Mode.SCOUT, 1.0, 400, 1.0, 0.0, 0.4)
PROGRESS = Progress(BF16, (INT4, TOKENS), 0, time_left_s=1.0, since_switch_s=1.0)


def test_a_transfer_on_time_is_left_alone(steady: Steady) -> None:
    assert isinstance(decide(PROGRESS, steady(10e6)), Keep)


def test_a_late_transfer_takes_the_best_remainder_that_is_safe(steady: Steady) -> None:
    without_tokens = replace(PROGRESS, alternatives=(INT4,))
    verdict = decide(without_tokens, steady(2e6))
    assert isinstance(verdict, SwitchTo)
    assert verdict.remainder is INT4
    assert verdict.cause == "deadline_forecast"


def test_a_collapsed_link_leaves_the_rest_to_the_cloud(steady: Steady) -> None:
    assert isinstance(decide(PROGRESS, steady(1e5)), FinishWithTokens)


def test_the_backlog_counts_before_any_remainder(steady: Steady) -> None:
    stuck = replace(PROGRESS, backlog_bytes=2_000_000, alternatives=(INT4,))
    verdict = decide(stuck, steady(2e6))
    assert isinstance(verdict, Keep) or verdict.probability < 0.01


def test_a_lost_deadline_is_missed_by_as_little_as_possible(steady: Steady) -> None:
    late = replace(PROGRESS, time_left_s=-0.5)
    assert isinstance(decide(late, steady(1e5)), FinishWithTokens)


def test_a_late_transfer_that_is_nearly_over_is_not_switched(steady: Steady) -> None:
    nearly = replace(BF16, payload_bytes=20_000)
    late = replace(PROGRESS, current=nearly, time_left_s=-0.5)
    assert isinstance(decide(late, steady(1e6)), Keep)


def test_a_fast_link_upgrades_the_rest(steady: Steady) -> None:
    cheap = replace(PROGRESS, current=INT4, alternatives=(BF16, TOKENS))
    verdict = decide(cheap, steady(20e6))
    assert isinstance(verdict, SwitchTo | FinishWithTokens)
    assert verdict.remainder.quality > INT4.quality


def test_no_upgrade_right_after_a_switch(steady: Steady) -> None:
    cheap = replace(PROGRESS, current=INT4, alternatives=(BF16,), since_switch_s=0.05)
    assert isinstance(decide(cheap, steady(20e6)), Keep)


def test_slightly_below_target_is_kept() -> None:
    class Coin(TransferForecast):
        def probability_within(
            self, payload_bytes: float, seconds: float, delay_s: float = 0.0
        ) -> float:
            return 0.85 if payload_bytes > 2_000_000 else 0.99

    coin = Coin((), (0.0,), 0.0, 0.0, known=True)
    assert isinstance(decide(PROGRESS, coin), Keep)


SENT = replace(INT4, payload_bytes=0)
TO_INT8 = Remainder(Mode.KV_INT8, 1.0, 900_000, 0.98, 0.02, 0.06)
TO_BF16 = Remainder(Mode.KV_BF16, 1.0, 1_500_000, 1.0, 0.05, 0.08)
ALL_SENT = Progress(SENT, (TO_INT8, TO_BF16), 0, time_left_s=0.5, since_switch_s=0.0)


def test_what_was_sent_is_refined_as_far_as_the_time_left_allows(steady: Steady) -> None:
    assert refine(ALL_SENT, steady(20e6)) is TO_BF16
    assert refine(ALL_SENT, steady(3e6)) is TO_INT8
    assert refine(ALL_SENT, steady(1e6)) is None
    assert refine(replace(ALL_SENT, time_left_s=0.01), steady(20e6)) is None


def test_a_backlog_is_not_overtaken_by_a_refinement(steady: Steady) -> None:
    assert refine(replace(ALL_SENT, backlog_bytes=20_000_000), steady(20e6)) is None


def test_nothing_is_refined_for_no_gain(steady: Steady) -> None:
    equal = replace(ALL_SENT, current=replace(SENT, quality=1.0))
    assert refine(equal, steady(20e6)) is None
    same = replace(ALL_SENT, alternatives=(TO_INT8, replace(TO_BF16, quality=TO_INT8.quality)))
    assert refine(same, steady(20e6)) is TO_INT8

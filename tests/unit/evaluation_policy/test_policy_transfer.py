"""Virtual transfers: the testbed's arithmetic, and switches that waste nothing."""

from __future__ import annotations

import pytest

from scout_core.control.estimator import GoodputEstimator
from scout_core.control.samples import TransferSample
from scout_core.evaluation.policy_transfer import (
    SwitchingTransfer,
    Watcher,
    Way,
    plain_transfer,
)
from scout_core.modes import Mode
from scout_core.testbed.link import DirectionConfig
from scout_core.testbed.queueing import FlowId
from scout_core.testbed.schedule import RateSchedule
from scout_core.testbed.virtual import VirtualDirection

BF16 = Way(Mode.KV_BF16, 1.0, 4_000_000, 1.0, 0.0, 0.05)
INT4 = Way(Mode.KV_INT4, 1.0, 1_100_000, 0.9, 0.0, 0.05)
TOKENS = Way(Mode.SCOUT, 1.0, 2_000, 1.0, 0.0, 0.05, share_s=0.3)
COLLAPSE = RateSchedule((0.0, 0.4), (40.0, 3.0))


def experienced(schedule: RateSchedule, rate_mbps: float) -> Watcher:
    """A watcher whose estimator has seen the link at a rate until now (0 s)."""
    estimator = GoodputEstimator()
    for step in range(40):
        size = int(rate_mbps * 1e6 / 8 * 0.25)
        estimator.observe(TransferSample(size, 0.25, False, -10.0 + 0.25 * (step + 1)))
    return Watcher(schedule, estimator)


def switching(schedule: RateSchedule, rate_mbps: float, *ways: Way) -> SwitchingTransfer:
    return SwitchingTransfer(schedule, experienced(schedule, rate_mbps), ways, target=0.9)


def test_a_plain_transfer_takes_as_long_as_on_the_testbeds_twin() -> None:
    schedule = RateSchedule((0.0, 1.0, 2.5), (8.0, 0.5, 20.0), 4.0)
    direction = VirtualDirection(DirectionConfig(schedule, delay_s=0.0))
    direction.submit(FlowId(0), 4_000_000, 0.7)
    (completion,) = direction.advance(60.0)
    sent = plain_transfer(schedule, BF16, 0.7)
    assert sent.finished_at_s == pytest.approx(completion.at_s, abs=1e-6)


def test_a_steady_link_sees_no_switch() -> None:
    sent = switching(RateSchedule.constant(40.0), 40.0, BF16, INT4, TOKENS).run(
        BF16, 0.0, 2.0, 0.03
    )
    assert (sent.switches, sent.mode, sent.payload_bytes) == (0, Mode.KV_BF16, 4_000_000)
    assert sent.finished_at_s == pytest.approx(0.8)


def test_a_collapse_is_finished_with_tokens_and_keeps_what_arrived() -> None:
    slow_start = RateSchedule((0.0, 0.5), (40.0, 1.0))
    sent = switching(slow_start, 40.0, BF16, INT4, TOKENS).run(BF16, 0.0, 5.0, 0.03)
    assert sent.switches >= 1
    assert sent.mode is Mode.SCOUT
    assert sent.payload_bytes > 2_500_000
    assert sent.finished_at_s + sent.cloud_s < 5.0
    late = plain_transfer(slow_start, BF16, 0.0)
    assert late.finished_at_s > 10.0


def test_quality_is_shared_out_by_what_was_sent_in_each_mode() -> None:
    sent = switching(COLLAPSE, 40.0, BF16, INT4).run(BF16, 0.0, 3.0, 0.03)
    assert sent.switches >= 1
    assert 0.9 < sent.quality < 1.0


def test_the_tokens_finish_costs_the_cloud_in_proportion_to_the_rest() -> None:
    slow_start = RateSchedule((0.0, 0.5), (40.0, 1.0))
    sent = switching(slow_start, 40.0, BF16, TOKENS).run(BF16, 0.0, 5.0, 0.03)
    assert TOKENS.fixed_s < sent.cloud_s < TOKENS.fixed_s + TOKENS.share_s

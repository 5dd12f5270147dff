"""Credit: the sender's book never goes wrong, the receiver's window follows its rule."""

from __future__ import annotations

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scout_core.errors import (
    CreditExceededError,
    LocalProtocolError,
    ProtocolError,
    RemoteProtocolError,
)
from scout_core.protocol.arrival_rate import SAMPLES, ArrivalRate
from scout_core.protocol.credit import (
    KIB,
    PACING_BURST_S,
    WINDOW_FLOOR_BYTES,
    WINDOW_MAX_BYTES,
    WINDOW_START_BYTES,
    CreditLedger,
    CreditPolicy,
    CreditWindow,
)

STEPS = st.lists(
    st.tuples(st.sampled_from(["grant", "send", "ack", "resume"]), st.integers(-5, 300)),
    max_size=60,
)


@given(steps=STEPS)
def test_credit_never_goes_negative_and_is_never_exceeded(steps: list[tuple[str, int]]) -> None:
    ledger = CreditLedger(50)
    for name, value in steps:
        limit, acked = ledger.limit, ledger.acked
        with contextlib.suppress(ProtocolError):
            match name:
                case "grant":
                    ledger.grant(value)
                    assert ledger.limit >= limit
                case "send":
                    ledger.record_sent(value)
                case "ack":
                    ledger.record_acked(value)
                case _:
                    ledger.resume(value, value + 10)
        assert ledger.available >= 0
        assert ledger.unacked >= 0
        assert 0 <= ledger.acked <= ledger.sent <= ledger.limit
        assert ledger.acked >= acked


def test_ledger_refuses_what_would_break_it() -> None:
    ledger = CreditLedger(10)
    ledger.record_sent(10)
    with pytest.raises(LocalProtocolError, match="wait for more"):
        ledger.record_sent(1)
    with pytest.raises(RemoteProtocolError, match="decreased"):
        ledger.grant(9)
    with pytest.raises(RemoteProtocolError, match="outside"):
        ledger.record_acked(11)
    ledger.record_acked(6)
    with pytest.raises(RemoteProtocolError, match="outside"):
        ledger.record_acked(5)
    with pytest.raises(RemoteProtocolError, match=r"only 6\.\.10"):
        ledger.resume(5, 20)
    with pytest.raises(RemoteProtocolError, match="below the resume offset"):
        ledger.resume(8, 7)
    assert (ledger.acked, ledger.sent, ledger.limit) == (6, 10, 10)
    with pytest.raises(LocalProtocolError):
        CreditLedger(-1)


def test_resume_continues_from_what_the_receiver_has() -> None:
    ledger = CreditLedger(10)
    ledger.record_sent(10)
    ledger.resume(4, 30)
    assert (ledger.acked, ledger.sent, ledger.available) == (4, 4, 26)


def steady(window: CreditWindow, rate_bytes_per_s: float, seconds: float) -> None:
    step_s = 0.002
    for index in range(1, int(seconds / step_s) + 1):
        now = index * step_s
        window.arrived(int(rate_bytes_per_s * now), now)


@pytest.mark.parametrize("rate_mbps", [0.1, 1, 10, 100, 400])
def test_window_is_the_stated_function_of_goodput_and_round_trip(rate_mbps: float) -> None:
    rate = rate_mbps * 1e6 / 8
    window = CreditWindow(CreditPolicy(), 0.02)
    steady(window, rate, 1.0)
    expected = min(64 * KIB, 0.25 * rate) + 1.5 * rate * 0.02
    clamped = min(max(expected, WINDOW_FLOOR_BYTES), WINDOW_MAX_BYTES)
    assert window.window_bytes == pytest.approx(clamped, rel=0.01)


def test_window_has_a_floor_and_a_ceiling() -> None:
    window = CreditWindow(CreditPolicy(), 0.02)
    assert window.window_bytes == WINDOW_START_BYTES
    steady(window, 100.0, 300.0)
    assert window.window_bytes == WINDOW_FLOOR_BYTES
    window = CreditWindow(CreditPolicy(), 0.02)
    steady(window, 5e9, 1.0)
    assert window.window_bytes == WINDOW_MAX_BYTES


@pytest.mark.parametrize(("claimed_s", "believed_s"), [(0.0, 0.05), (1e-4, 0.01), (9.0, 2.0)])
def test_round_trip_of_the_peer_is_believed_within_bounds(
    claimed_s: float, believed_s: float
) -> None:
    claimed = CreditWindow(CreditPolicy(), claimed_s)
    believed = CreditWindow(CreditPolicy(), believed_s)
    steady(claimed, 1e6, 30.0)
    steady(believed, 1e6, 30.0)
    assert claimed.window_bytes == believed.window_bytes


def test_chunk_beyond_the_credit_is_refused() -> None:
    window = CreditWindow(CreditPolicy(initial_bytes=100), 0.02)
    window.check(100)
    with pytest.raises(CreditExceededError):
        window.check(101)


def test_small_rooms_wait_but_a_blocked_sender_does_not() -> None:
    window = CreditWindow(CreditPolicy(), 0.02)
    assert window.grant(0.0) == WINDOW_START_BYTES  # all of W is out already
    window.arrived(window.quantum_bytes - 1, 0.001)
    assert window.grant(0.001) == WINDOW_START_BYTES
    window.arrived(window.quantum_bytes, 0.002)
    assert window.grant(0.002) == WINDOW_START_BYTES + window.quantum_bytes
    small = CreditWindow(CreditPolicy(initial_bytes=10), 0.02)
    small.arrived(10, 0.001)
    assert small.grant(0.001) == 10 + WINDOW_START_BYTES


def test_credit_ends_at_the_payload_limit() -> None:
    window = CreditWindow(CreditPolicy(payload_limit_bytes=WINDOW_START_BYTES + 10), 0.02)
    window.arrived(WINDOW_START_BYTES, 0.001)
    assert window.grant(0.001) == WINDOW_START_BYTES + 10
    window.arrived(WINDOW_START_BYTES + 10, 0.002)
    assert window.grant(0.002) == WINDOW_START_BYTES + 10
    assert window.next_grant_at(0.002) is None


@given(rate=st.floats(1e3, 1e9), steps=st.lists(st.floats(0.0, 0.5), min_size=1, max_size=50))
def test_paced_credit_never_runs_ahead_of_its_rate(rate: float, steps: list[float]) -> None:
    window = CreditWindow(CreditPolicy(initial_bytes=0), 0.02)
    window.allocate(rate, 0.0)
    now = 0.0
    limit = 0
    for step in steps:
        now += step
        granted = window.grant(now)
        assert granted >= limit
        limit = granted
        assert granted <= rate * now + 1
        window.arrived(granted, now)


def test_next_grant_is_ready_when_it_says() -> None:
    window = CreditWindow(CreditPolicy(initial_bytes=0), 0.02)
    window.allocate(40_000.0, 5.0)
    assert window.grant(5.0) == 0
    at = window.next_grant_at(5.0)
    assert at == pytest.approx(5.0 + 4 * KIB / 40_000.0)
    assert at is not None
    assert window.grant(at - 0.01) == 0
    assert window.grant(at) == 4 * KIB


def test_a_late_tick_catches_up_a_little_and_no_more() -> None:
    window = CreditWindow(CreditPolicy(initial_bytes=0), 0.02)
    window.allocate(5e5, 0.0)
    assert window.grant(0.08) == pytest.approx(40_000, abs=1)
    window.arrived(40_000, 0.08)
    assert window.grant(10.0) == pytest.approx(40_000 + 5e5 * PACING_BURST_S, abs=1)


def test_renewed_allocation_keeps_what_has_gathered() -> None:
    window = CreditWindow(CreditPolicy(initial_bytes=0), 0.02)
    for step in range(20):
        window.allocate(1e6, step * 0.001)
    assert window.grant(0.02) == pytest.approx(20_000, abs=1)
    window.allocate(None, 0.02)
    assert window.next_grant_at(0.02) is None
    assert window.grant(0.02) == WINDOW_START_BYTES


@pytest.mark.parametrize("rate", [-1.0, math.nan])
def test_allocation_that_is_no_rate_is_refused(rate: float) -> None:
    window = CreditWindow(CreditPolicy(), 0.02)
    with pytest.raises(LocalProtocolError, match="must not be negative"):
        window.allocate(rate, 0.0)


def test_allocation_of_nothing_withholds_credit_until_there_is_a_rate() -> None:
    window = CreditWindow(CreditPolicy(initial_bytes=0), 0.02)
    window.allocate(1e6, 0.0)
    window.allocate(0.0, 0.01)
    # What has gathered is the session's: less than a quantum is given out as well.
    assert window.next_grant_at(0.01) == 0.01
    assert window.grant(0.01) == pytest.approx(10_000, abs=1)
    assert window.next_grant_at(10.0) is None
    assert window.grant(10.0) == pytest.approx(10_000, abs=1)
    window.allocate(1e6, 10.0)
    assert window.grant(10.01) == pytest.approx(10_000, abs=1)
    assert window.next_grant_at(10.01) == pytest.approx(10.02)
    assert window.grant(10.02) == pytest.approx(30_000, abs=2)


def test_a_share_that_hops_to_and_fro_loses_nothing() -> None:
    window = CreditWindow(CreditPolicy(initial_bytes=0), 0.02)
    now, granted_bytes = 0.0, 0.0
    for turn in range(40):
        rate = (1e5, 0.0, 3e5, 2e3)[turn % 4]
        window.allocate(rate, now)
        for _ in range(7):
            now += 0.001
            granted_bytes += rate * 0.001
            window.arrived(window.grant(now), now)
    window.allocate(0.0, now)
    assert window.grant(now) == pytest.approx(granted_bytes, rel=0.001)


def test_what_has_gathered_is_kept_back_if_it_is_not_to_be_released() -> None:
    window = CreditWindow(CreditPolicy(initial_bytes=0), 0.05)
    window.allocate(100_000.0, 0.0)
    window.allocate(0.0, 0.03, releases=False)
    assert window.grant(1.0) == 0
    assert window.next_grant_at(1.0) is None
    assert window.promised(1.0) == 0
    window.allocate(0.0, 1.0)
    assert window.promised(1.0) == 3_000
    assert window.grant(1.0) == 3_000


def test_what_is_promised_is_what_the_end_of_the_pacing_leaves() -> None:
    window = CreditWindow(CreditPolicy(initial_bytes=0), 0.05)
    assert window.promised(0.0) == 0
    window.allocate(100_000.0, 0.0)
    window.grant(0.05)
    granted, promised = window.limit, window.promised(0.06)
    assert promised == granted + 1_000
    window.allocate(0.0, 0.06)
    assert window.grant(0.06) == promised == window.promised(9.0)


def test_a_small_share_is_granted_within_a_quarter_of_a_second() -> None:
    window = CreditWindow(CreditPolicy(initial_bytes=0), 0.02)
    window.allocate(400.0, 0.0)
    assert window.next_grant_at(0.0) == pytest.approx(0.25)
    assert window.grant(0.25) == 100
    assert window.grant(0.5) == 200


def test_received_bytes_cannot_decrease() -> None:
    window = CreditWindow(CreditPolicy(), 0.02)
    window.arrived(5, 0.0)
    with pytest.raises(LocalProtocolError):
        window.arrived(4, 0.1)


@pytest.mark.parametrize(("initial", "limit"), [(-1, 10), (WINDOW_MAX_BYTES + 1, 1 << 40), (9, 8)])
def test_policy_out_of_range_is_refused(initial: int, limit: int) -> None:
    with pytest.raises(LocalProtocolError):
        CreditPolicy(initial, limit)


def test_arrival_rate_is_exact_for_chunks_of_any_size() -> None:
    rate = ArrivalRate(0.02)
    total = 0
    for index in range(100):
        total += 7_000
        rate.observe(total, index * 0.007)
    assert rate.bytes_per_s == pytest.approx(1e6)


def test_arrival_rate_forgets_after_its_samples() -> None:
    step_s = 1 / 64
    rate = ArrivalRate(step_s)
    rate.observe(0, 0.0)
    assert rate.observe(100_000, step_s)
    for index in range(1, SAMPLES):
        assert rate.observe(100_000 + index * 10, (1 + index) * step_s)
    assert rate.bytes_per_s == 100_000 * 64
    rate.observe(100_000 + SAMPLES * 10, (1 + SAMPLES) * step_s)
    assert rate.bytes_per_s == 10 * 64


def test_early_samples_stand_in_until_the_first_is_complete() -> None:
    rate = ArrivalRate(period_s=1.0, early_s=0.125)
    assert not rate.observe(0, 0.0)
    assert not rate.observe(1_000, 0.0625)
    assert rate.observe(2_000, 0.125)
    assert rate.bytes_per_s == 16_000.0
    assert rate.observe(2_500, 0.25)
    assert rate.bytes_per_s == 16_000.0
    assert rate.observe(5_000, 1.0)
    assert rate.bytes_per_s == 5_000.0
    assert not rate.observe(105_000, 1.5)
    assert rate.bytes_per_s == 5_000.0


def test_arrival_rate_does_not_count_a_pause_between_streams() -> None:
    rate = ArrivalRate(1 / 64)
    rate.observe(0, 0.0)
    rate.restart()
    assert not rate.observe(50, 10.0)
    assert rate.observe(100_050, 10.0 + 1 / 64)
    assert rate.bytes_per_s == 100_000 * 64

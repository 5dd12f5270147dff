"""Leases, conduct, capacity, admission and guarantees."""

from __future__ import annotations

import math

import numpy as np
import pytest

from scout_core.allocation.admission import Reservations, first_opening
from scout_core.allocation.capacity import CapacityEstimate, CapacityObservation, CapacityPolicy
from scout_core.allocation.conduct import ConductAccount, ConductPolicy
from scout_core.allocation.guarantees import Guarantees, select_with_guarantees
from scout_core.allocation.knapsack import select_offers
from scout_core.allocation.leases import GrantLedger, Lease
from scout_core.allocation.offer import Offer, TenantPolicy
from scout_core.allocation.policy import SchedulerPolicy
from scout_core.errors import LocalProtocolError, RequestError, RetentionError, SettingsError
from scout_core.modes import Mode, SessionId, TenantId
from tests.support.allocation_cases import GROUP, problem

A, B = SessionId("a"), SessionId("b")


def test_a_batch_may_move_a_share_from_one_to_another() -> None:
    ledger = GrantLedger(GROUP, 100.0)
    ledger.apply({A: Lease(100.0, 1.0)}, 0.0, capacity_bytes_per_s=100.0)
    ledger.apply({B: Lease(60.0, 1.0), A: Lease(40.0, 1.0)}, 0.5, capacity_bytes_per_s=100.0)
    assert ledger.rate_bytes_per_s(A, 0.6) == 40.0
    assert ledger.granted_bytes_per_s(0.6) == 100.0


def test_a_batch_beyond_the_capacity_changes_nothing() -> None:
    ledger = GrantLedger(GROUP, 100.0)
    ledger.apply({A: Lease(80.0, 1.0)}, 0.0, capacity_bytes_per_s=100.0)
    with pytest.raises(LocalProtocolError, match="above its capacity"):
        ledger.apply({B: Lease(30.0, 1.0)}, 0.0, capacity_bytes_per_s=100.0)
    assert ledger.granted_bytes_per_s(0.0) == 80.0


def test_an_expired_lease_frees_its_share() -> None:
    ledger = GrantLedger(GROUP, 100.0)
    ledger.apply({A: Lease(80.0, 1.0)}, 0.0, capacity_bytes_per_s=100.0)
    assert ledger.granted_bytes_per_s(1.0) == 0.0
    ledger.apply({B: Lease(100.0, 2.0)}, 1.0, capacity_bytes_per_s=100.0)
    assert ledger.expire(1.0) == (A,)
    assert ledger.next_expiry_s() == 2.0


def test_a_lease_that_begins_expired_is_refused() -> None:
    with pytest.raises(LocalProtocolError, match="end after"):
        GrantLedger(GROUP, 1.0).apply({A: Lease(1.0, 5.0)}, 5.0, capacity_bytes_per_s=1.0)


def test_an_agent_within_its_grant_never_offends_however_its_acks_are_spaced() -> None:
    account = ConductAccount(ConductPolicy(burst_bytes=10.0, lag_s=0.5), 0.0)
    account.granted(100.0, 0.0)
    assert account.received(5.0, 0.05) == 0.0
    # The grant ends; the bytes it allowed arrive a little later.
    account.granted(0.0, 1.0)
    assert account.received(45.0, 1.2) == 0.0


def test_idle_time_does_not_pile_up_into_a_licence_to_flood() -> None:
    account = ConductAccount(ConductPolicy(burst_bytes=10.0, tolerance=0.0, lag_s=0.5), 0.0)
    account.granted(100.0, 0.0)
    assert account.received(500.0, 100.0) == pytest.approx(500.0 - 10.0 - 50.0)


def test_containment_lasts_until_the_excess_is_paid_off() -> None:
    account = ConductAccount(ConductPolicy(containment_s=1.0), 0.0)
    account.contain(300.0, 100.0, 5.0)
    assert account.is_contained(7.9)
    assert not account.is_contained(8.0)
    assert account.offences == 1


def test_a_configured_capacity_does_not_learn() -> None:
    estimate = CapacityEstimate(CapacityPolicy(1e5), 0.0)
    estimate.observe(CapacityObservation(5e4, 0.5, True, 1.0))
    assert estimate.bytes_per_s == 1e5


def test_volatility_is_zero_for_a_steady_capacity_and_grows_with_its_changes() -> None:
    estimate = CapacityEstimate(CapacityPolicy(1e5), 0.0)
    for second in range(1, 20):
        estimate.configure(1e5, float(second))
    assert estimate.volatility == 0.0
    for second in range(20, 80):
        estimate.configure(1e5 if second % 2 else 1.5e5, float(second))
    assert estimate.volatility == pytest.approx(math.log(1.5), rel=0.05)


def play_link(
    estimate: CapacityEstimate, link_bytes_per_s: float, seconds: float, at_s: float
) -> float:
    """A saturated fluid link with a queue: the agents send what the estimate grants."""
    queue, step = 0.0, 0.1
    for number in range(round(seconds / step)):
        queue = max(queue + (estimate.bytes_per_s - link_bytes_per_s) * step, 0.0)
        goodput = link_bytes_per_s if queue > 0 else min(estimate.bytes_per_s, link_bytes_per_s)
        now = at_s + (number + 1) * step
        estimate.observe(CapacityObservation(goodput, queue / link_bytes_per_s, True, now))
    return at_s + seconds


def test_learning_finds_a_capacity_and_follows_it_down_and_up() -> None:
    estimate = CapacityEstimate(CapacityPolicy(1e5, learns=True), 0.0)
    now = play_link(estimate, 1e6, 10.0, 0.0)
    assert estimate.bytes_per_s == pytest.approx(1e6, rel=0.12)
    now = play_link(estimate, 3e5, 2.0, now)
    assert estimate.bytes_per_s <= 3e5 * 1.05
    play_link(estimate, 6e5, 20.0, now)
    assert estimate.bytes_per_s == pytest.approx(6e5, rel=0.12)


def test_a_link_that_became_much_faster_is_found_in_seconds_and_a_steady_one_is_left_in_peace() -> (
    None
):
    estimate = CapacityEstimate(CapacityPolicy(1e5, learns=True), 0.0)
    now = play_link(estimate, 2e5, 10.0, 0.0)
    assert estimate.bytes_per_s <= 2e5 * 1.2
    play_link(estimate, 2e6, 5.0, now)
    assert estimate.bytes_per_s >= 2e6 * 0.85


def test_a_link_that_delivers_less_than_granted_is_not_probed_hard_even_without_a_queue() -> None:
    estimate = CapacityEstimate(CapacityPolicy(1e6, learns=True), 0.0)
    for number in range(1, 40):
        goodput = min(estimate.bytes_per_s, 6e5)
        estimate.observe(CapacityObservation(goodput, 0.0, True, 0.1 * number))
    assert 6e5 <= estimate.bytes_per_s <= 6e5 * 1.5


def test_a_pause_of_days_is_no_reason_to_probe_without_bounds() -> None:
    estimate = CapacityEstimate(CapacityPolicy(1e5, learns=True), 0.0)
    estimate.observe(CapacityObservation(1e5, 0.0, True, 1e6))
    assert 1e5 < estimate.bytes_per_s < 2e5


def test_an_unsaturated_goodput_is_only_a_lower_bound() -> None:
    estimate = CapacityEstimate(CapacityPolicy(100.0, learns=True, minimum_bytes_per_s=1.0), 0.0)
    estimate.observe(CapacityObservation(10.0, 0.0, False, 1.0))
    assert estimate.bytes_per_s == 100.0
    estimate.observe(CapacityObservation(130.0, 0.0, False, 2.0))
    assert estimate.bytes_per_s == 130.0


def test_a_rejected_request_is_told_when_the_first_share_ends_that_is_large_enough() -> None:
    reserved = Reservations(np.array([60.0, 40.0]), np.array([1.0, 2.0]))
    opening = first_opening(np.array([60.0]), np.array([0.1]), math.inf, reserved, 100.0)
    assert opening.start_s == 1.0
    assert opening.finish_s == pytest.approx(1.0 + 0.1 + 1.0)


def test_what_is_left_over_now_is_used_if_it_is_sooner() -> None:
    reserved = Reservations(np.array([50.0]), np.array([10.0]))
    opening = first_opening(np.array([100.0]), np.array([0.0]), math.inf, reserved, 100.0)
    assert (opening.start_s, opening.finish_s) == (0.0, 2.0)


def test_without_any_capacity_there_is_no_opening() -> None:
    reserved = Reservations(np.zeros(0), np.zeros(0))
    opening = first_opening(np.array([1.0]), np.array([0.0]), math.inf, reserved, 0.0)
    assert opening.finish_s == math.inf


def test_a_guaranteed_tenant_keeps_what_its_share_gives_it() -> None:
    # Tenant 1 counts for little; without its guarantee it would be left at its floor.
    crowd = problem(
        [[1.0, 40.0], [1.0, 40.0], [1.0, 40.0]], [[5.0, 9.0], [5.0, 9.0], [0.05, 0.09]], 100.0
    )
    tenants = np.array([0, 0, 1])
    free = select_with_guarantees(crowd, Guarantees(tenants, np.zeros(2)), select_offers)
    assert free.choice.tolist() == [1, 1, 0]
    half = select_with_guarantees(crowd, Guarantees(tenants, np.array([0.0, 0.5])), select_offers)
    assert half.choice[2] == 1


def test_a_guarantee_holds_even_when_not_all_floors_fit() -> None:
    crowd = problem([[40.0], [40.0], [40.0]], [[9.0], [9.0], [0.1]], 100.0)
    guarantees = Guarantees(np.array([0, 0, 1]), np.array([0.0, 0.5]))
    selection = select_with_guarantees(crowd, guarantees, select_offers)
    assert selection.choice[2] == 0
    assert sorted(selection.choice[:2].tolist()) == [-1, 0]


@pytest.mark.parametrize("quality", [-0.1, 2.0, math.nan])
def test_an_absurd_quality_is_refused(quality: float) -> None:
    with pytest.raises(RequestError):
        Offer(Mode.SCOUT, 0.5, 10, quality)


def test_an_offer_needs_a_retention_and_bytes() -> None:
    with pytest.raises(RetentionError):
        Offer(Mode.SCOUT, 0.0, 10, 1.0)
    with pytest.raises(RequestError):
        Offer(Mode.SCOUT, 0.5, 0, 1.0)


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(SettingsError, match="outlast"):
        SchedulerPolicy(lease_s=0.1, period_s=0.1)
    with pytest.raises(SettingsError, match="between"):
        CapacityPolicy(10.0, minimum_bytes_per_s=100.0)
    with pytest.raises(SettingsError, match="Weight"):
        TenantPolicy(TenantId("t"), weight=0.0)

"""Probing stays within its budget and off metered links."""

from __future__ import annotations

from scout_core.control.probe import ProbeBudget, ProbeSettings


def test_no_minute_ever_exceeds_the_budget() -> None:
    settings = ProbeSettings(bytes_per_minute=300_000, idle_after_s=0.0, largest_bytes=100_000)
    budget = ProbeBudget(settings)
    sent = [(step * 0.5, budget.due(step * 0.5, 1e6)) for step in range(600)]
    for start, _ in sent:
        window = sum(size for at, size in sent if start <= at < start + 60.0)
        assert window <= 300_000
    assert sum(size for _, size in sent) >= 1_200_000


def test_a_metered_link_is_never_probed() -> None:
    assert ProbeBudget(ProbeSettings(metered=True)).due(1e6, 1e6) == 0


def test_a_busy_link_is_not_probed() -> None:
    budget = ProbeBudget(ProbeSettings(idle_after_s=10.0))
    budget.on_activity(100.0)
    assert budget.due(105.0, 1e6) == 0
    assert budget.due(110.0, 1e6) > 0


def test_probe_size_follows_the_expected_rate_within_limits() -> None:
    settings = ProbeSettings(smallest_bytes=16_000, largest_bytes=1_000_000, target_s=0.1)
    assert ProbeBudget(settings).due(0.0, 1e3) == 16_000
    assert ProbeBudget(settings).due(0.0, 2e6) == 200_000
    assert ProbeBudget(settings).due(0.0, 1e9) == 1_000_000

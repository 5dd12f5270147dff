"""How the effect of misconduct is told from noise."""

from __future__ import annotations

import numpy as np
import pytest

from scout_core.evaluation.allocation_misconduct import completion_change
from scout_core.evaluation.allocation_real import RealRun
from scout_core.evaluation.allocation_replay import ReplayOutcome

AGENTS, ROUNDS = 3, 20


def run(seed: int, factors: tuple[float, ...] = (1.0, 1.0, 1.0)) -> RealRun:
    """Deliveries after one to three seconds, with 2 % of noise; the last agent's do not count."""
    noise = np.random.default_rng(seed).normal(1.0, 0.02, (AGENTS + 1, ROUNDS))
    return RealRun(
        [
            [
                ReplayOutcome(turn, delivered_s=(1 + number) * factor * float(noise[number, turn]))
                for turn in range(ROUNDS)
            ]
            for number, factor in enumerate((*factors, 7.0))
        ]
    )


def test_nothing_changes_between_a_run_and_itself() -> None:
    change = completion_change([run(1)], [run(1)], AGENTS)
    assert change["mean_percent"] == change["worst_agent_percent"] == 0.0
    assert change["requests"] == AGENTS * ROUNDS


def test_who_is_delayed_is_found_and_how_sure_that_is() -> None:
    controls, others = [run(1), run(2)], [run(3, (1.0, 1.1, 1.0)), run(4, (1.0, 1.1, 1.0))]
    change = completion_change(controls, others, AGENTS)
    assert change["worst_agent_percent"] == pytest.approx(10.0, abs=2.0)
    low, high = change["agent_interval_percent"][1]
    assert 5.0 < low < change["agent_mean_percent"][1] < high
    quiet_low, quiet_high = change["agent_interval_percent"][0]
    assert quiet_low < 0.0 < quiet_high or abs(change["agent_mean_percent"][0]) < 1.5

"""How much later the others' payloads are delivered when one agent misbehaves.

This module owns the comparison: the same requests with and without it, the means of each agent and
how sure they are. It plays nothing (``allocation_real``) and judges nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from scout_core.evaluation.allocation_real import RealRun

RESAMPLES: Final = 10_000
"""Bootstrap over rounds (Efron 1979), the agents of a round together: they share its link."""
INTERVAL: Final = (2.5, 97.5)


def completion_change(
    controls: Sequence[RealRun], runs: Sequence[RealRun], agents: int
) -> dict[str, Any]:
    """By how many percent the requests of the first ``agents`` agents were delivered later.

    Args:
        controls, runs: as many of each, played in pairs; all have the same rounds.

    Returns:
        ``agent_mean_percent`` and its 95 % ``agent_interval_percent``, ``worst_agent_percent`` with
        the largest amount among them, ``mean_percent`` over everything, and the spread of single
        requests.
    """
    pairs = zip(controls, runs, strict=True)
    changes = np.hstack([_changes(base, other, agents) for base, other in pairs])
    rounds = changes.shape[1]
    drawn = np.random.default_rng(0).integers(0, rounds, (RESAMPLES, rounds))
    low, high = np.percentile(changes[:, drawn].mean(axis=2), INTERVAL, axis=1)
    means = changes.mean(axis=1)
    return {
        "mean_percent": round(float(changes.mean()), 2),
        "agent_mean_percent": _rounded(means),
        "agent_interval_percent": [
            [round(float(one), 2) for one in pair] for pair in zip(low, high, strict=True)
        ],
        "worst_agent_percent": round(float(means[np.abs(means).argmax()]), 2),
        "percentiles_0_10_50_90_100": _rounded(np.percentile(changes, (0, 10, 50, 90, 100))),
        "requests": int(changes.size),
    }


def _changes(base: RealRun, other: RealRun, agents: int) -> NDArray[np.float64]:
    """``[agents, rounds]`` percent."""
    rows = zip(base.outcomes[:agents], other.outcomes[:agents], strict=True)
    return np.array(
        [
            [100 * (b.delivered_s / a.delivered_s - 1) for a, b in zip(ours, theirs, strict=True)]
            for ours, theirs in rows
        ]
    )


def _rounded(values: NDArray[np.float64]) -> list[float]:
    return [round(float(value), 2) for value in values]

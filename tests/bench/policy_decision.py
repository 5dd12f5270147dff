"""Microseconds of a decision: forecast, offers, choice, steering.

Run: python -m tests.bench.policy_decision

Prints one JSON document; the figures are the least of many repeats, in processor time.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from functools import partial

from scout_core.control.downgrade import Progress, Remainder, decide, refine
from scout_core.control.estimator import GoodputEstimator
from scout_core.control.offers import RequestFacts, feasible_offers
from scout_core.control.policies import POLICY_NAMES, policy_named
from scout_core.control.policy import Situation
from scout_core.control.samples import TransferSample
from scout_core.evaluation.paper_pairs import bundled_pair
from scout_core.modes import Mode

REPEATS = 50
CALLS = 100


def quickest_us(call: Callable[[], object]) -> float:
    """Least processor time of one call, microseconds."""
    best = float("inf")
    for _ in range(REPEATS):
        started = time.process_time()
        for _ in range(CALLS):
            call()
        best = min(best, (time.process_time() - started) / CALLS)
    return best * 1e6


def transfer_under_way() -> Progress:
    """Half of an int4 payload is left; three other ways could take over."""
    ways = tuple(
        Remainder(mode, 1.0, payload_bytes, quality, 0.01, 0.05)
        for mode, payload_bytes, quality in (
            (Mode.KV_BF16, 4_000_000, 1.0),
            (Mode.KV_INT8, 2_000_000, 0.99),
            (Mode.SCOUT, 400, 0.9),
        )
    )
    current = Remainder(Mode.KV_INT4, 1.0, 1_000_000, 0.98, 0.01, 0.05)
    return Progress(current, ways, 100_000, time_left_s=2.0, since_switch_s=1.0)


def main() -> None:
    source = random.Random(1)
    estimator = GoodputEstimator()
    for step in range(60):
        rate = 2e6 * source.lognormvariate(0.0, 0.5)
        estimator.observe(TransferSample(int(rate * 0.5), 0.5, False, step * 0.5))
    facts = RequestFacts(1000, 24, 30, edge_has_cloud_model=True)
    offers = feasible_offers(facts, bundled_pair().sources)
    situation = Situation(estimator.forecast(31.0, 0.03), deadline_s=2.0)
    sample = TransferSample(1_000_000, 0.5, False, 32.0)
    document = {
        "offers": len(offers),
        "forecast_us": quickest_us(partial(estimator.forecast, 31.0, 0.03)),
        "feasible_offers_us": quickest_us(partial(feasible_offers, facts, bundled_pair().sources)),
        "choose_us": {
            name: quickest_us(partial(policy_named(name).choose, offers, situation))
            for name in POLICY_NAMES
        },
        "steer_us": {
            rule.__name__: quickest_us(partial(rule, transfer_under_way(), situation.forecast))
            for rule in (decide, refine)
        },
        "observe_us": quickest_us(partial(estimator.observe, sample)),
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()

"""Whether compression pays is decided with the codec speeds that the hosts measured (DESIGN §2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from scout_core.control.cost import CostModel, Stage
from scout_core.control.forecast import TransferForecast
from scout_core.control.offers import OfferSources, RequestFacts, feasible_offers
from scout_core.control.policies import ChanceConstraintPolicy
from scout_core.control.policy import Situation
from scout_core.modes import Mode

FACTS = RequestFacts(
    1_000, 20, 30, edge_has_cloud_model=True, edge_has_scout=False, edge_holds_kv=True
)
BYTES_PER_TOKEN = 23_040
TEN_GBIT, TEN_MBYTE = 1.25e9, 10e6


def measured(int8_gb_s: float) -> CostModel:
    """A host whose groups take that speed, on any number of tokens; copies take 15 GB/s."""
    costs = CostModel()
    for tokens in (50, 200, 1_000, 2_000):
        for stage, gb_s in (
            (Stage.EDGE_ENCODE_BF16, 15.0),
            (Stage.EDGE_ENCODE_INT8, int8_gb_s),
            (Stage.EDGE_ENCODE_INT4, int8_gb_s),
            (Stage.EDGE_ENCODE_SELECT, int8_gb_s),
            (Stage.CLOUD_INJECT, 15.0),
        ):
            costs.observe(stage, tokens, tokens * BYTES_PER_TOKEN / (gb_s * 1e9))
        costs.observe(Stage.CLOUD_FIRST_TOKEN, tokens, 0.01)
    return costs


@pytest.mark.parametrize(
    ("int8_gb_s", "bytes_per_s", "deadline_s", "expected"),
    [
        (0.1, TEN_GBIT, 0.15, Mode.KV_BF16),  # 0.24 s of encoding save 0.01 s of transfer
        (5.0, TEN_GBIT, 0.15, Mode.KV_INT8),  # as good in time, and half the bytes
        (0.1, TEN_MBYTE, 2.0, Mode.KV_INT8),  # 2.4 s of bf16 are too late whatever it takes
        (5.0, TEN_MBYTE, 2.0, Mode.KV_INT8),
    ],
)
def test_slow_codecs_lose_on_fast_links_and_win_on_slow_ones(
    sources: OfferSources,
    steady: Callable[[float], TransferForecast],
    int8_gb_s: float,
    bytes_per_s: float,
    deadline_s: float,
    expected: Mode,
) -> None:
    costs = measured(int8_gb_s)
    offers = feasible_offers(FACTS, replace(sources, edge_costs=costs, cloud_costs=costs))
    situation = Situation(steady(bytes_per_s), deadline_s)
    assert ChanceConstraintPolicy().choose(offers, situation).offer.mode is expected

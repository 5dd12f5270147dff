"""The studied pairs: bytes exact, costs as measured, quality as named."""

from __future__ import annotations

import pytest

from scout_core.control.cost import Stage
from scout_core.evaluation.paper_pairs import (
    EDGE_SLOWDOWN,
    MeasuredCosts,
    bundled_pair,
    paper_pair,
    paper_quality,
)
from scout_core.modes import Execution, Mode


def test_kv_bytes_are_those_of_the_models() -> None:
    assert paper_pair("3b", "7b").kv_bf16_bytes_per_token == 57_344
    assert paper_pair("3b", "14b").kv_bf16_bytes_per_token == 196_608
    assert bundled_pair().kv_bf16_bytes_per_token == 23_040


def test_measured_prefill_times_are_met_exactly() -> None:
    costs = paper_pair("7b", "14b").sources.cloud_costs
    for tokens, seconds in ((170, 0.044), (4096, 0.234), (16_384, 1.095)):
        assert costs.predict(Stage.CLOUD_PREFILL, tokens) == pytest.approx(seconds)


def test_the_edge_is_slower_by_the_stated_factor() -> None:
    sources = paper_pair("3b", "14b").sources
    cloud_s = sources.cloud_costs.predict(Stage.CLOUD_PREFILL, 4096)
    assert sources.edge_costs.predict(Stage.EDGE_PREFILL, 4096) == pytest.approx(
        EDGE_SLOWDOWN * cloud_s
    )


def test_costs_interpolate_and_continue() -> None:
    costs = MeasuredCosts({Stage.CLOUD_PREFILL: ((100.0, 1.0), (200.0, 2.0), (400.0, 6.0))})
    for tokens, seconds in ((0, 0.0), (150, 1.5), (300, 4.0), (500, 8.0)):
        assert costs.predict(Stage.CLOUD_PREFILL, tokens) == pytest.approx(seconds)


@pytest.mark.parametrize("scout_at_half", [0.98, 1.07])
def test_the_papers_figure_is_in_the_table_and_its_name(scout_at_half: float) -> None:
    table = paper_quality(scout_at_half)
    assert table.quality(Mode.SCOUT, Execution.EVICT, 0.5, 170) == scout_at_half
    assert f"{scout_at_half:.0%}" in table.name
    assert table.quality(Mode.KV_BF16, Execution.EVICT, 1.0, 170) == 1.0


def test_pairs_at_both_ends_of_the_papers_range_have_different_names() -> None:
    assert paper_pair("3b", "7b", 0.98).name != paper_pair("3b", "7b", 1.07).name

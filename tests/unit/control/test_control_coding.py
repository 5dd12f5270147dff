"""The codec within a mode follows the break-even rule."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scout_core.control.coding import TRANSFORMED, CodingSources, KvCoding, coded_kv
from scout_core.control.cost import CostModel, Stage
from scout_core.control.offers import OfferSources, RequestFacts, feasible_offers
from scout_core.modes import Mode

POSITIONS = 1_000
FACTS = RequestFacts(context_tokens=1000, head_tokens=20, tail_tokens=30, edge_has_cloud_model=True)


class TenthOfBf16:
    """2,304 bytes a position."""

    def transform_bytes(self, positions: int) -> int:
        return 2_304 * positions

    def graded_bytes(self, positions: int) -> int:
        return 1_536 * positions


def measured_costs() -> CostModel:
    """Groups at 6 GB/s, the transform at 0.4 GB/s of bf16, both ways."""
    costs = CostModel()
    for stage, gb_s in (
        (Stage.EDGE_ENCODE_INT4, 6.0),
        (Stage.EDGE_ENCODE_SELECT, 6.0),
        (Stage.CLOUD_INJECT, 6.0),
        (Stage.EDGE_ENCODE_TRANSFORM, 0.4),
        (Stage.CLOUD_INJECT_TRANSFORM, 0.4),
    ):
        for tokens in (100, 500, 1_000, 2_000):
            costs.observe(stage, tokens, tokens * 23_040 / (gb_s * 1e9))
    return costs


@pytest.fixture
def coding(sources: OfferSources) -> CodingSources:
    costs = measured_costs()
    return CodingSources(sources.sizes, costs, costs, TenthOfBf16())


@pytest.mark.parametrize(
    ("bytes_per_s", "expected"),
    [
        (1e6, KvCoding.TRANSFORM),
        (12.5e6, KvCoding.TRANSFORM),
        (125e6, KvCoding.PLAIN),
        (1.25e9, KvCoding.PLAIN),
    ],
)
def test_the_transform_pays_on_slow_links_alone(
    coding: CodingSources, bytes_per_s: float, expected: KvCoding
) -> None:
    chosen = coded_kv(Mode.KV_INT4, POSITIONS, replace(coding, link_bytes_per_s=bytes_per_s))
    assert chosen.coding is expected


def test_the_crossover_is_where_saved_transfer_equals_spent_arithmetic(
    coding: CodingSources,
) -> None:
    saved_bytes = coding.sizes.kv_bytes(Mode.KV_INT4, POSITIONS) - 2_304 * POSITIONS
    # encoding overlaps the transfer: only the cloud's decoding is waited for
    spent_s = POSITIONS * 23_040 * (1 / 0.4e9 - 1 / 6e9)
    crossover = saved_bytes / spent_s
    for factor, expected in ((0.7, KvCoding.TRANSFORM), (1.5, KvCoding.PLAIN)):
        rate = replace(coding, link_bytes_per_s=factor * crossover)
        assert coded_kv(Mode.KV_INT4, POSITIONS, rate).coding is expected


@pytest.mark.parametrize(("scoring_s", "expected"), [(0.9, True), (1.1, False)])
def test_grades_pay_where_they_save_more_seconds_than_scoring_takes(
    coding: CodingSources, scoring_s: float, expected: bool
) -> None:
    rate = 1e6
    saved_s = (2_304 - 1_536) * POSITIONS / rate
    graded = replace(coding, link_bytes_per_s=rate, scoring_s=scoring_s * saved_s)
    chosen = coded_kv(Mode.KV_INT4, POSITIONS, graded)
    assert (chosen.coding is KvCoding.GRADED) is expected
    assert chosen.scoring_s == (graded.scoring_s if expected else 0.0)


def test_without_scores_in_time_nothing_is_graded(coding: CodingSources) -> None:
    slow = replace(coding, link_bytes_per_s=1e5)
    assert coded_kv(Mode.KV_INT4, POSITIONS, slow).coding is KvCoding.TRANSFORM
    at_once = replace(slow, scoring_s=0.0)
    assert coded_kv(Mode.KV_INT4, POSITIONS, at_once).coding is KvCoding.GRADED
    for other in (replace(at_once, transform=None), replace(at_once, link_bytes_per_s=1e10)):
        assert coded_kv(Mode.KV_INT4, POSITIONS, other).coding is KvCoding.PLAIN


def test_modes_that_promise_more_than_4_bits_keep_their_own_codec(coding: CodingSources) -> None:
    slow = replace(coding, link_bytes_per_s=1e5)
    for mode in (Mode.KV_BF16, Mode.KV_INT8):
        assert coded_kv(mode, POSITIONS, slow).coding is KvCoding.PLAIN


def test_without_a_transform_in_common_nothing_changes(coding: CodingSources) -> None:
    slow = replace(coding, link_bytes_per_s=1e5, transform=None)
    chosen = coded_kv(Mode.KV_INT4, POSITIONS, slow)
    assert chosen.coding is KvCoding.PLAIN
    assert chosen.payload_bytes == coding.sizes.kv_bytes(Mode.KV_INT4, POSITIONS)


def measured_sources(sources: OfferSources, link_bytes_per_s: float) -> OfferSources:
    """With measured codec speeds, a transform and a link."""
    costs = measured_costs()
    return replace(
        sources,
        edge_costs=costs,
        cloud_costs=costs,
        transform=TenthOfBf16(),
        link_bytes_per_s=link_bytes_per_s,
    )


def test_offers_have_the_bytes_and_times_of_the_codec_that_is_chosen(
    sources: OfferSources,
) -> None:
    slow = measured_sources(sources, link_bytes_per_s=1e6)
    fast = replace(slow, link_bytes_per_s=1e10)
    for on_slow, on_fast in zip(
        feasible_offers(FACTS, slow), feasible_offers(FACTS, fast), strict=True
    ):
        assert on_fast.coding is KvCoding.PLAIN
        if on_slow.mode in TRANSFORMED:
            # kv_select scores in any case; kv_int4 would have to wait for the prefill's end.
            selects = on_slow.mode is Mode.KV_SELECT
            assert on_slow.coding is (KvCoding.GRADED if selects else KvCoding.TRANSFORM)
            assert on_slow.payload_bytes < on_fast.payload_bytes
            assert on_slow.cloud_s > on_fast.cloud_s
            assert on_slow.quality == on_fast.quality
            assert on_slow.edge_s == on_fast.edge_s
        else:
            assert on_slow == on_fast


def test_a_held_cache_is_graded_for_the_seconds_that_the_question_takes(
    sources: OfferSources,
) -> None:
    slow = measured_sources(sources, link_bytes_per_s=1e5)
    held = replace(FACTS, edge_holds_kv=True, forced_mode=Mode.KV_INT4)
    (offer,) = feasible_offers(held, slow)
    assert offer.coding is KvCoding.GRADED
    assert offer.payload_bytes == 1_536 * held.prefix_tokens
    assert offer.edge_s == measured_costs().predict(Stage.EDGE_PREFILL, held.tail_tokens)

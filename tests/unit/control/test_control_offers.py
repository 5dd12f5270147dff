"""Which offers exist, and what they cost."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scout_core.control.cost import Stage
from scout_core.control.offers import (
    CloudContext,
    OfferSources,
    RequestFacts,
    feasible_offers,
    kept_tokens,
)
from scout_core.errors import ModeUnavailableError
from scout_core.modes import Execution, Mode

FACTS = RequestFacts(context_tokens=1000, head_tokens=20, tail_tokens=30, edge_has_cloud_model=True)


def test_same_model_at_both_ends_offers_all_five_modes(sources: OfferSources) -> None:
    assert {offer.mode for offer in feasible_offers(FACTS, sources)} == set(Mode)


def test_an_edge_without_the_clouds_model_offers_scout_only(sources: OfferSources) -> None:
    offers = feasible_offers(replace(FACTS, edge_has_cloud_model=False), sources)
    assert {offer.mode for offer in offers} == {Mode.SCOUT}


def test_an_edge_without_any_model_offers_the_tokens(sources: OfferSources) -> None:
    facts = replace(FACTS, edge_has_cloud_model=False, edge_has_scout=False)
    (offer,) = feasible_offers(facts, sources)
    assert (offer.mode, offer.retention, offer.edge_s) == (Mode.SCOUT, 1.0, 0.0)


@pytest.mark.parametrize("mode", [Mode.KV_BF16, Mode.KV_INT8, Mode.KV_INT4, Mode.KV_SELECT])
def test_forcing_kv_without_the_model_says_why(sources: OfferSources, mode: Mode) -> None:
    facts = replace(FACTS, edge_has_cloud_model=False, forced_mode=mode)
    with pytest.raises(ModeUnavailableError, match="does not hold the cloud's model"):
        feasible_offers(facts, sources)


def test_forcing_a_part_of_the_context_in_a_full_mode_says_why(sources: OfferSources) -> None:
    facts = replace(FACTS, forced_mode=Mode.KV_INT8, forced_retention=0.5)
    with pytest.raises(ModeUnavailableError, match=r"retention must be 1\.0"):
        feasible_offers(facts, sources)


def test_forcing_scout_retention_without_a_scout_says_why(sources: OfferSources) -> None:
    facts = replace(FACTS, edge_has_scout=False, forced_mode=Mode.SCOUT, forced_retention=0.5)
    with pytest.raises(ModeUnavailableError, match="needs a scout model"):
        feasible_offers(facts, sources)


def test_forced_mode_and_retention_give_just_that(sources: OfferSources) -> None:
    facts = replace(FACTS, forced_mode=Mode.KV_SELECT, forced_retention=0.3)
    (offer,) = feasible_offers(facts, sources)
    assert (offer.mode, offer.retention) == (Mode.KV_SELECT, 0.3)


def test_forced_kv_select_at_full_retention_is_served(sources: OfferSources) -> None:
    facts = replace(FACTS, forced_mode=Mode.KV_SELECT, forced_retention=1.0)
    (offer,) = feasible_offers(facts, sources)
    assert offer.payload_bytes == sources.sizes.kv_bytes(Mode.KV_SELECT, 1020)


def scout(sources: OfferSources, held: CloudContext, execution: Execution) -> tuple[int, float]:
    facts = replace(
        FACTS,
        cloud_context=held,
        forced_mode=Mode.SCOUT,
        forced_retention=0.25,
        forced_execution=execution,
    )
    (offer,) = feasible_offers(facts, sources)
    return offer.payload_bytes, offer.cloud_s


def test_what_the_cloud_holds_is_not_sent_again(sources: OfferSources) -> None:
    absent, _ = scout(sources, CloudContext.ABSENT, Execution.EVICT)
    tokens, full_s = scout(sources, CloudContext.TOKENS, Execution.EVICT)
    cached, gather_s = scout(sources, CloudContext.KV, Execution.EVICT)
    assert absent - tokens == sources.sizes.token_bytes(1000)
    assert cached == tokens == sources.sizes.index_bytes(1000, 250)
    saved = sources.cloud_costs.predict(Stage.CLOUD_PREFILL, 1020)
    assert full_s - gather_s == pytest.approx(saved)


def test_sparse_sends_and_prefills_only_the_selected_tokens(sources: OfferSources) -> None:
    evict_bytes, evict_s = scout(sources, CloudContext.ABSENT, Execution.EVICT)
    sparse_bytes, sparse_s = scout(sources, CloudContext.ABSENT, Execution.SPARSE)
    assert evict_bytes - sparse_bytes == pytest.approx(0.75 * 2000, abs=5)
    assert sparse_s < 0.5 * evict_s


def test_a_cached_prefix_costs_no_edge_prefill(sources: OfferSources) -> None:
    cold = feasible_offers(replace(FACTS, forced_mode=Mode.KV_INT8), sources)[0]
    warm = feasible_offers(replace(FACTS, forced_mode=Mode.KV_INT8, edge_holds_kv=True), sources)[0]
    assert warm.edge_s == 0.0
    assert cold.edge_s == sources.edge_costs.predict(Stage.EDGE_PREFILL, 1020)


@pytest.mark.parametrize(
    ("tokens", "retention", "kept"), [(1, 0.1, 1), (170, 0.5, 85), (10, 0.1, 1), (10, 1.0, 10)]
)
def test_kept_tokens(tokens: int, retention: float, kept: int) -> None:
    assert kept_tokens(tokens, retention) == kept

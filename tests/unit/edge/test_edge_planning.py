"""From a question to a plan: facts of this host, feasible offers, the policy's choice."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_agent.cloud_view import CloudView
from edge_agent.host import EdgeHost, ScoutModel
from edge_agent.planning import Plan, Planner, Question, requested_execution
from edge_agent.settings import EdgeSettings
from edge_agent.steering import Steering
from scout_core.control.coding import KvCoding
from scout_core.control.cost import CostModel
from scout_core.control.offers import CloudContext
from scout_core.control.policies import ChanceConstraintPolicy
from scout_core.control.samples import TransferSample
from scout_core.daemon.contexts import ContextStore
from scout_core.daemon.models import describe_model
from scout_core.daemon.settings import load_settings
from scout_core.daemon.worker import TorchWorker
from scout_core.engine import Engine
from scout_core.engine.scoring import AttentionScorer
from scout_core.engine.scouts import scorer_between
from scout_core.errors import ModeUnavailableError
from scout_core.models.quality import UNCALIBRATED
from scout_core.modes import Execution, Mode, ModelFingerprint
from scout_core.rpc.requests import ContextReference, GenerateParameters
from scout_core.sampling import SamplingOptions
from tests.support.testbed import CONTEXT, QUESTION
from tests.support.tiny_models import foreign_tokenizer, save_tiny_model, tiny_engine
from tests.support.tiny_transform import tiny_basis

NOW = time.monotonic()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return tiny_engine(save_tiny_model(tmp_path_factory.mktemp("model")))


def host_with(engine: Engine, *, replica: bool = True, scout: bool = True) -> EdgeHost:
    scorer = ScoutModel(engine, AttentionScorer(engine, None), "mean") if scout else None
    return EdgeHost(
        settings=load_settings(EdgeSettings, None, {}),
        worker=TorchWorker(),
        replica=engine if replica else None,
        replica_scorer=scorer if replica else None,
        scout=scorer,
        quality=UNCALIBRATED,
        profile_name="none",
        contexts=ContextStore(1 << 24, 60.0),
        scout_contexts=ContextStore(1 << 24, 60.0),
    )


def view_of(engine: Engine, **changes: Any) -> CloudView:
    values: dict[str, Any] = {
        "server_id": "cloud",
        "model": describe_model(engine),
        "initial_credit_bytes": 65_536,
        "heartbeat_interval_s": 1.0,
        "costs": CostModel(),
    }
    return CloudView(**(values | changes))


def question(host: EdgeHost, *, deadline_s: float = 5.0, **forced: Any) -> Question:
    key, stored = host.put_context(CONTEXT)
    values: dict[str, Any] = {
        "context": ContextReference(text=CONTEXT),
        "question": QUESTION,
        "deadline_s": deadline_s,
        "sampling": SamplingOptions(),
        "mode": None,
        "retention": None,
        "execution": None,
        "model": "",
    }
    return Question(GenerateParameters(**(values | forced)), key, stored, deadline_s, NOW)


def plan(host: EdgeHost, asked: Question, view: CloudView) -> Plan:
    return Planner(host, ChanceConstraintPolicy()).plan(asked, view, 0.02, NOW)


def on_link(host: EdgeHost, bytes_per_s: float) -> EdgeHost:
    """Teaches the host its link."""
    for age in range(20, 0, -1):
        host.estimator.observe(TransferSample(int(bytes_per_s), 1.0, False, NOW - 0.05 * age))
    return host


@pytest.mark.parametrize("mode", list(Mode))
def test_forced_mode_is_the_mode_of_the_plan(mode: Mode, engine: Engine) -> None:
    host = host_with(engine)
    retention = 0.5 if mode.selects else None
    chosen = plan(host, question(host, mode=mode, retention=retention), view_of(engine)).offer
    assert chosen.mode is mode
    assert chosen.retention == (retention or 1.0)


def test_a_context_beyond_the_scouts_window_is_kept_whole(engine: Engine, tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path, "gemma3", tokenizer=foreign_tokenizer())
    for limit, retentions in ((512, {1.0, 0.5, 0.25, 0.1}), (64, {1.0})):
        scout = tiny_engine(folder, context_limit_tokens=limit)
        scorer = scorer_between(scout, engine, None)
        host = replace(host_with(engine), scout=ScoutModel(scout, scorer, "aligned"))
        offers = plan(host, question(host), view_of(engine)).offers
        scouting = {offer.retention for offer in offers if offer.mode is Mode.SCOUT}
        assert scouting == retentions


@pytest.mark.parametrize("mode", [mode for mode in Mode if mode.carries_kv])
def test_kv_mode_cannot_be_forced_without_the_clouds_model(mode: Mode, engine: Engine) -> None:
    scout_alone = host_with(engine, replica=False)
    with pytest.raises(ModeUnavailableError, match="cloud's model"):
        plan(scout_alone, question(scout_alone, mode=mode), view_of(engine))
    other_weights = replace(describe_model(engine), fingerprint=ModelFingerprint("0" * 64))
    host = host_with(engine)
    with pytest.raises(ModeUnavailableError, match="cloud's model"):
        plan(host, question(host, mode=mode), view_of(engine, model=other_weights))


def test_kv_goes_through_the_transform_that_both_ends_hold_on_links_that_are_slow(
    engine: Engine,
) -> None:
    basis = replace(tiny_basis(engine), int4_level=12)
    shared = view_of(engine, model=describe_model(engine, basis.digest))
    chosen: dict[str, Plan] = {}
    for name, view, rate in (
        ("shared", shared, 50e3),
        ("fast", shared, 50e9),
        ("absent", view_of(engine), 50e3),
        ("other", view_of(engine, model=describe_model(engine, "0" * 64)), 50e3),
    ):
        host = on_link(host_with(engine), rate)
        host.transform = basis
        chosen[name] = plan(host, question(host, mode=Mode.KV_INT4), view)
    assert chosen["shared"].offer.coding is KvCoding.TRANSFORM
    for name in ("fast", "absent", "other"):
        assert chosen[name].offer.coding is KvCoding.PLAIN
        assert chosen["shared"].offer.payload_bytes < chosen[name].offer.payload_bytes


def test_blocks_follow_the_link_between_codecs_even_where_the_mode_is_forced(
    engine: Engine,
) -> None:
    basis = replace(tiny_basis(engine), int4_level=12)
    view = view_of(engine, model=describe_model(engine, basis.digest))
    host = on_link(host_with(engine), 50e9)
    host.transform = basis
    asked = question(host, mode=Mode.KV_INT4)
    steering = Steering(host, view, asked, plan(host, asked, view), lambda: 0, 0.02)
    assert steering.coding(Mode.KV_INT4, 0) is KvCoding.PLAIN
    on_link(host, 50e3)
    steering.consider(Mode.KV_INT4, 32, NOW)
    assert steering.coding(Mode.KV_INT4, 32) is KvCoding.TRANSFORM
    assert steering.coding(Mode.KV_INT8, 32) is KvCoding.PLAIN


def test_retention_of_a_whole_mode_cannot_be_forced(engine: Engine) -> None:
    host = host_with(engine)
    with pytest.raises(ModeUnavailableError, match="kv_select or scout"):
        plan(host, question(host, mode=Mode.KV_INT8, retention=0.5), view_of(engine))


def test_without_a_scout_the_tokens_themselves_remain(engine: Engine) -> None:
    host = host_with(engine, scout=False)
    with pytest.raises(ModeUnavailableError, match="retention 1"):
        plan(host, question(host, mode=Mode.SCOUT, retention=0.5), view_of(engine))
    chosen = plan(host, question(host, mode=Mode.SCOUT), view_of(engine)).offer
    assert chosen.retention == 1.0


def test_slow_link_leads_to_few_bytes(engine: Engine) -> None:
    slow = on_link(host_with(engine), 2_000.0)
    chosen = plan(slow, question(slow, deadline_s=2.0), view_of(engine))
    assert chosen.offer.mode is Mode.SCOUT
    assert chosen.offer.payload_bytes < 1_000
    assert chosen.link_bytes_per_s == pytest.approx(2_000.0, rel=0.2)


def test_what_the_cloud_holds_is_not_sent_again(engine: Engine) -> None:
    host = host_with(engine)
    asked = question(host, mode=Mode.SCOUT, retention=0.5, execution=Execution.EVICT)
    absent = plan(host, asked, view_of(engine))
    host.beliefs.note(asked.key, CloudContext.KV, NOW)
    held = plan(host, asked, view_of(engine))
    assert held.facts.cloud_context is CloudContext.KV
    assert held.offer.payload_bytes < absent.offer.payload_bytes


def test_only_scout_mode_asks_for_an_execution(engine: Engine) -> None:
    host = host_with(engine)
    scout = plan(host, question(host, mode=Mode.SCOUT, retention=0.5), view_of(engine)).offer
    whole = plan(host, question(host, mode=Mode.KV_INT8), view_of(engine)).offer
    assert requested_execution(scout) in set(Execution)
    assert requested_execution(whole) is None


def test_plan_offers_every_feasible_alternative_to_the_allocator(engine: Engine) -> None:
    host = host_with(engine)
    offers = plan(host, question(host), view_of(engine)).offers
    assert {offer.mode for offer in offers} == set(Mode)
    assert all(offer.payload_bytes >= 0 and 0 < offer.retention <= 1 for offer in offers)


def test_planning_computes_no_cache(engine: Engine) -> None:
    host = host_with(engine)
    asked = question(host)
    plan(host, asked, view_of(engine))
    assert asked.stored.cache is None

"""An edge without the cloud's tokenizer plans and sends characters; one with it never does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.character_payload import (
    CharacterSizes,
    require_short_enough,
    spans_block,
    text_block,
)
from edge_agent.host import EdgeHost, ScoutModel
from edge_agent.settings import EdgeSettings
from scout_core.codec.spans import MAX_CHARACTERS, decode_spans
from scout_core.control.sizes import BLOCK_HEADER_BYTES
from scout_core.daemon.contexts import ContextStore
from scout_core.daemon.models import describe_model
from scout_core.daemon.settings import load_settings
from scout_core.daemon.worker import TorchWorker
from scout_core.engine import Engine, EngineOptions
from scout_core.engine.loading import load_tokenizer
from scout_core.engine.scouts import scorer_between
from scout_core.errors import ContextTooLongError, FingerprintMismatchError, ModeUnavailableError
from scout_core.models.quality import UNCALIBRATED, QualityRow, QualityTable
from scout_core.modes import Execution, Mode, ModelFingerprint, PositionUnit
from scout_core.protocol.blocks import BlockKind, BlockParser
from scout_core.selection.alignment import covering_tokens
from tests.support.tiny_models import foreign_tokenizer, save_tiny_model, tiny_engine

TEXT = "The lamp was converted; naïve 日本語 🎉 beams reach far, twenty two miles. " * 3


@pytest.fixture(scope="module")
def cloud_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("cloud"))


@pytest.fixture(scope="module")
def cloud(cloud_folder: Path) -> Engine:
    return tiny_engine(cloud_folder)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("scout")
    return tiny_engine(save_tiny_model(folder, "gemma3", tokenizer=foreign_tokenizer()))


def host_of(scout: Engine, replica: Engine | None = None) -> EdgeHost:
    scorer = scorer_between(scout, replica or scout, None)
    return EdgeHost(
        settings=load_settings(EdgeSettings, None, {}),
        worker=TorchWorker(),
        replica=replica,
        replica_scorer=None,
        scout=ScoutModel(scout, scorer, scorer.selector_name),
        quality=UNCALIBRATED,
        profile_name="none",
        contexts=ContextStore(1 << 24, 60.0),
        scout_contexts=ContextStore(1 << 24, 60.0),
    )


def test_tokens_are_counted_wherever_the_clouds_tokenizer_is(
    cloud: Engine, cloud_folder: Path, foreign: Engine
) -> None:
    model = describe_model(cloud)
    tokenizer = load_tokenizer(EngineOptions(str(cloud_folder)))
    assert tokenizer.tokenizer_fingerprint == cloud.tokenizer_fingerprint
    assert tokenizer.prompt.context_tokens(TEXT) == cloud.prompt.context_tokens(TEXT)
    assert tokenizer.vocabulary == cloud.vocabulary
    for host in (
        host_of(cloud),
        host_of(foreign, replica=cloud),
        replace(host_of(foreign), tokenizer=tokenizer),
    ):
        assert host.position_unit(model) is PositionUnit.CLOUD_TOKENS


def test_a_scout_alone_counts_characters_and_a_wrong_tokenizer_is_refused(
    cloud: Engine, foreign: Engine
) -> None:
    assert host_of(foreign).position_unit(describe_model(cloud)) is PositionUnit.CHARACTERS
    with pytest.raises(FingerprintMismatchError, match="cloud_tokenizer"):
        host_of(foreign, replica=cloud).position_unit(describe_model(foreign))


def test_a_profile_of_another_cloud_says_nothing_of_this_one(
    cloud: Engine, foreign: Engine
) -> None:
    rows = [
        QualityRow(mode, execution, 1.0, 1, 100, 0.7, 30, 0.6, 0.8)
        for mode in Mode
        for execution in Execution
    ]
    measured = QualityTable("measured", rows)
    host = replace(host_of(foreign), quality=measured, profile_cloud=cloud.fingerprint)
    assert host.quality_with(describe_model(cloud)) is measured
    other = replace(describe_model(cloud), fingerprint=ModelFingerprint("f" * 64))
    assert host.quality_with(other) is UNCALIBRATED


@given(st.sets(st.integers(0, 10_000), min_size=1))
def test_the_ranges_of_a_selection_cover_it_exactly(chosen: set[int]) -> None:
    spans = tuple((index, index + 3) for index in range(0, len(TEXT) - 3, 3))
    selection = np.array(sorted({index % len(spans) for index in chosen}), dtype=np.int64)
    block, body_bytes = spans_block(selection, spans, TEXT)
    (parsed,) = BlockParser().feed(block)
    assert parsed.header.kind is BlockKind.SPANS
    assert len(parsed.body) == body_bytes
    kept = decode_spans(parsed.body, len(TEXT), parsed.header.count)
    assert covering_tokens(kept, spans).tolist() == selection.tolist()


def test_the_planned_text_is_the_text(foreign: Engine) -> None:
    (parsed,) = BlockParser().feed(text_block(TEXT))
    assert parsed.header.count == len(TEXT)
    sizes = CharacterSizes(TEXT)
    assert len(text_block(TEXT)) <= sizes.token_bytes(7) == len(TEXT.encode()) + BLOCK_HEADER_BYTES
    with pytest.raises(ModeUnavailableError, match="cloud's model"):
        sizes.kv_bytes(Mode.KV_INT8, 4)


def test_a_text_that_the_wire_cannot_count_is_refused() -> None:
    require_short_enough("x" * MAX_CHARACTERS)
    with pytest.raises(ContextTooLongError, match="cloud_tokenizer"):
        require_short_enough("x" * (MAX_CHARACTERS + 1))

"""``scout calibrate`` on a tiny pair: a whole profile, or a reason why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from scout_core.errors import EmptyInputError
from scout_core.evaluation import quality_study
from scout_core.evaluation.dataset import Example
from scout_core.evaluation.quality_models import Hosting, Pair, load_pair
from scout_core.evaluation.quality_profile import Request, calibrate
from scout_core.modes import Execution, Mode
from tests.support.tiny_models import save_tiny_model

PASSAGE = "The lighthouse was built of granite by Anna Holm in 1820. The lamp was converted later."
EXAMPLES = tuple(
    Example(f"{PASSAGE} Number {i}.", "Who built it?", ("Anna Holm",), f"g{i}", "x", str(i))
    for i in range(44)
)
REQUEST = Request("tiny", (0.5, 0.25), 12, "made up")


def _half_right(text: str, golds: Sequence[str]) -> float:
    del text
    return 0.5 * bool(golds)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = str(save_tiny_model(tmp_path_factory.mktemp("tiny")))
    return load_pair(folder, folder, None, Hosting("cpu", "float32", 1))


def test_a_profile_has_every_mode_and_both_models_heads(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality_study, "answer_f1", _half_right)
    profile = calibrate(pair, EXAMPLES, REQUEST, lambda _: None)
    rows = {(row.mode, row.execution, row.retention): row for row in profile.quality}
    scouts = {(Mode.SCOUT, e, r) for e in Execution for r in (0.25, 0.5, 1.0)}
    kept = {(Mode.KV_SELECT, Execution.EVICT, r) for r in (0.5, 1.0)}
    whole = {(mode, Execution.EVICT, 1.0) for mode in (Mode.KV_BF16, Mode.KV_INT8, Mode.KV_INT4)}
    assert set(rows) == scouts | kept | whole
    assert all((row.quality, row.n) == (1.0, 12) for row in rows.values())
    assert profile.cloud_head_weights is not None
    assert profile.scout_head_weights is not None
    assert len(profile.costs) == 2


def test_a_profile_for_other_hosts_has_no_costs(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality_study, "answer_f1", _half_right)
    assert calibrate(pair, EXAMPLES, replace(REQUEST, costs=False), lambda _: None).costs == ()


def test_a_model_that_answers_nothing_gets_no_profile(pair: Pair) -> None:
    hopeless = tuple(replace(example, answers=("granite by Anna",)) for example in EXAMPLES)
    with pytest.raises(EmptyInputError, match="answers none"):
        calibrate(pair, hopeless, REQUEST, lambda _: None)

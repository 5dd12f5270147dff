"""The study of a tiny pair: what it answers, what it keeps, and where it goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from scout_core.codec.groups import INT8_GROUPS
from scout_core.engine.scouts import scorer_between
from scout_core.engine.trained_scout import TrainedScorer
from scout_core.errors import RequestError
from scout_core.evaluation.dataset import Example
from scout_core.evaluation.quality_answers import prefill
from scout_core.evaluation.quality_batches import Budget
from scout_core.evaluation.quality_case import Case, case_of, scout_scores
from scout_core.evaluation.quality_cosine import kv_cosines
from scout_core.evaluation.quality_decoding import Job, Slice, answers_of
from scout_core.evaluation.quality_heads import fitted_heads, with_fitted_heads
from scout_core.evaluation.quality_models import Hosting, Pair, Scouting, load_pair
from scout_core.evaluation.quality_records import Record, RecordsFile, question_key
from scout_core.evaluation.quality_scouting import batched_scout_scores
from scout_core.evaluation.quality_study import Plan, Study
from scout_core.evaluation.quality_ways import WHOLE, Way
from scout_core.modes import Execution, Mode
from scout_core.sampling import SamplingOptions
from scout_core.selection.lexical import FEATURES
from scout_core.selection.readout import ReadoutShape, fresh_readout
from tests.support.tiny_models import HEADS, LAYERS, save_tiny_model
from tests.support.tiny_transform import tiny_basis

PASSAGES = (
    "The lighthouse was built of granite by Anna Holm in 1820. The lamp was converted later.",
    "Nobody slept. The mill burned down. A new bridge was built by an engineer of the north.",
)
EXAMPLES = tuple(
    Example(PASSAGES[index % 2], question, (answer,), f"g{index}", source, str(index))
    for index, (question, answer, source) in enumerate(
        (
            ("Who built the lighthouse?", "Anna Holm", "north"),
            ("Who built the new bridge?", "an engineer", "south"),
            ("When was the lighthouse built?", "1820", "north"),
            ("What burned down?", "The mill", "east"),
        )
    )
)
MANY = tuple(
    replace(example, group=f"{example.group}-{copy}", name=f"{example.name}-{copy}")
    for copy in range(6)
    for example in EXAMPLES
)
"""Enough to fit heads on, in many articles."""
IDENTITY = {"cloud": "a", "seed": 0}
FEW = Plan((0.5,), selectors=frozenset({"cloud", "oracle", "scout"}))
Found = list[tuple[str, Record]]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = str(save_tiny_model(tmp_path_factory.mktemp("tiny")))
    found = load_pair(folder, folder, None, Hosting("cpu", "float32", 1))
    return replace(found, heads=fitted_heads(found.cloud, found.model, MANY))


def _always(done: int, every: int) -> bool:
    return done <= every


def _ran(study: Study, examples: Sequence[Example]) -> Found:
    """What the study newly found."""
    found: Found = []
    study.run(examples, _always, found.extend)
    return found


def _engine_answer(pair: Pair, case: Case, kept: Sequence[int], execution: Execution) -> list[int]:
    """What a cloud server answers from these context positions."""
    engine = pair.cloud
    head = engine.prompt.head_tokens
    tokens = [*head, *case.tokens]
    places = [*range(len(head)), *(len(head) + index for index in kept)]
    if execution is Execution.EVICT:
        full = engine.new_cache()
        engine.prefill(full, tokens)
        cache = engine.evict(full, places)
    else:
        cache = engine.sparse_prefill([tokens[i] for i in places], places, len(tokens))
    decoder = engine.decoder(cache, case.tail, SamplingOptions(max_tokens=32))
    ids: list[int] = []
    while (token := decoder.step()) is not None:
        ids.append(token.token_id)
    return ids


def test_jobs_in_batches_answer_as_the_engine_alone(pair: Pair) -> None:
    cases = [case_of(pair, example) for example in EXAMPLES]
    head = tuple(pair.cloud.prompt.head_tokens)
    full = prefill(pair.model, [[*head, *case.tokens] for case in cases])
    jobs = [
        Job(question, execution, np.arange(question, len(case.tokens), step))
        for question, case in enumerate(cases)
        for execution in Execution
        for step in (1, 3)
    ]
    twice = [*jobs, *jobs[:2]]
    answers = answers_of(Slice(pair.model, head, cases, full), twice, Budget(60, 200, 400))
    for job, answer in zip(twice, answers, strict=True):
        kept = job.kept.tolist()
        assert answer == _engine_answer(pair, cases[job.question], kept, job.execution)


def test_scout_scores_in_a_batch_are_the_scorers_own(pair: Pair) -> None:
    cases = [case_of(pair, example) for example in EXAMPLES]
    assert pair.scouting is not None
    scorer = scorer_between(pair.scout, pair.cloud, pair.heads)
    with_heads = replace(pair, scorer=scorer, scouting=replace(pair.scouting, heads=pair.heads))
    shape = ReadoutShape(2 * LAYERS * HEADS + 2 * len(FEATURES), pair.scout.hidden_size, 3, 4)
    readout = fresh_readout(shape, seed=0, device=torch.device("cpu"))
    readout.tensors["readout.out"].data.add_(0.5)
    trained = replace(
        pair,
        scorer=TrainedScorer(pair.scout, readout),
        scouting=Scouting(pair.scouting.model, readout, None),
    )
    for this in (pair, with_heads, trained):
        for case, scores in zip(cases, batched_scout_scores(this, cases, 90), strict=True):
            assert np.allclose(scores, scout_scores(this, case), atol=1e-3)


def test_a_scout_of_another_kind_is_asked_question_by_question(pair: Pair) -> None:
    alone = replace(pair, scouting=None)
    cases = [case_of(pair, example) for example in EXAMPLES[:2]]
    found = batched_scout_scores(alone, cases, 90)
    assert [len(row) for row in found] == [len(case.tokens) for case in cases]
    assert kv_cosines(alone, EXAMPLES) == ()


def test_every_planned_way_of_every_question_is_answered(pair: Pair) -> None:
    study = Study(pair, FEW, None)
    _ran(study, EXAMPLES)
    rows = {
        (row.mode, row.execution, row.retention, row.selector, row.codec): row
        for row in study.rows()
    }
    assert set(rows) == {
        ("scout", "evict", 1.0, "all", ""),
        ("scout", "evict", 0.5, "oracle", ""),
        *((("scout", e, 0.5, s, "")) for e in ("evict", "sparse") for s in ("cloud", "scout")),
        ("kv_bf16", "evict", 1.0, "all", "raw_bf16"),
        ("kv_int8", "evict", 1.0, "all", "int8_groups"),
        ("kv_int4", "evict", 1.0, "all", "int4_groups"),
        ("kv_select", "evict", 0.5, "cloud", "int8_groups"),
    }
    assert {row.n for row in rows.values()} == {4}
    assert rows["scout", "evict", 0.5, "oracle", ""].answer_recall == 1.0
    assert rows["scout", "evict", 1.0, "all", ""].payload_bytes > 0


def test_where_an_edge_has_a_transform_kv_is_measured_through_it(pair: Pair) -> None:
    basis = tiny_basis(pair.cloud)
    study = Study(replace(pair, basis=basis), FEW, None)
    _ran(study, EXAMPLES)
    sent = {(row.mode, row.codec): row for row in study.rows() if row.codec}
    assert set(sent) == {
        ("kv_bf16", "raw_bf16"),
        ("kv_int8", "int8_groups"),
        ("kv_int4", "transform"),
        ("kv_int4", "transform_graded"),
        ("kv_select", "transform_graded"),
    }
    assert {row.n for row in sent.values()} == {4}
    whole, graded = sent["kv_int4", "transform"], sent["kv_int4", "transform_graded"]
    assert graded.payload_bytes < whole.payload_bytes
    assert graded.edge_compute > whole.edge_compute  # it reads the question
    assert sent["kv_select", "transform_graded"].payload_bytes < graded.payload_bytes


def test_records_keep_what_codec_a_way_had(pair: Pair, tmp_path: Path) -> None:
    path = RecordsFile(tmp_path / "records.jsonl", IDENTITY)
    study = Study(replace(pair, basis=tiny_basis(pair.cloud)), FEW, None)
    path.append(_ran(study, EXAMPLES[:2]))
    assert path.read() == study.records


def test_a_study_goes_on_from_its_records(pair: Pair, tmp_path: Path) -> None:
    path = RecordsFile(tmp_path / "records.jsonl", IDENTITY)
    path.append(_ran(Study(pair, FEW, None), EXAMPLES[:2]))
    again = Study(pair, FEW, None, path.read())
    rest = _ran(again, EXAMPLES)
    assert [key for key, _ in rest] == [question_key(EXAMPLES[2]), question_key(EXAMPLES[3])]
    whole = Study(pair, FEW, None)
    _ran(whole, EXAMPLES)
    assert again.records == whole.records


def test_files_of_parts_merge_by_standing_behind_each_other(pair: Pair, tmp_path: Path) -> None:
    parts = [RecordsFile(tmp_path / name, IDENTITY) for name in ("one", "two")]
    parts[0].append(_ran(Study(pair, FEW, None), EXAMPLES[:2]))
    parts[1].append(_ran(Study(pair, FEW, None), EXAMPLES[1:]))
    both = RecordsFile(tmp_path / "both", IDENTITY)
    both.path.write_text("".join(part.path.read_text() for part in parts))
    merged = both.read()
    assert set(merged) == {question_key(example) for example in EXAMPLES}
    assert _ran(Study(pair, FEW, None, merged), EXAMPLES) == []


def test_answers_are_added_to_what_was_only_selected(pair: Pair, tmp_path: Path) -> None:
    path = RecordsFile(tmp_path / "records.jsonl", IDENTITY)
    bare = Study(pair, replace(FEW, answers=False), None)
    path.append(_ran(bare, EXAMPLES))
    (row,) = (r for r in bare.rows() if r.execution == "evict" and r.selector == "scout")
    assert (row.n, row.f1, row.recall_n) == (0, None, 4)
    assert row.answer_recall is not None
    assert row.overlap is not None
    path.append(_ran(Study(pair, FEW, None, path.read()), EXAMPLES))
    assert all(o.f1 is not None for r in path.read().values() for o in r.outcomes.values())


def test_records_of_another_model_are_refused(pair: Pair, tmp_path: Path) -> None:
    path = RecordsFile(tmp_path / "records.jsonl", IDENTITY)
    path.append(_ran(Study(pair, FEW, None), EXAMPLES[:1]))
    with pytest.raises(RequestError, match="another cloud"):
        RecordsFile(path.path, {"cloud": "b", "seed": 0}).read()
    path.path.write_text("no record\n")
    with pytest.raises(RequestError, match=r"records\.jsonl:1"):
        path.read()


def test_a_study_that_is_stopped_keeps_whole_slices(pair: Pair) -> None:
    study = Study(pair, FEW, None)
    study._budget = Budget(60, 60, 400)  # pyright: ignore[reportPrivateUsage] - slices of one
    found: Found = []
    study.run(EXAMPLES, lambda done, _: done < 2, found.extend)
    assert len(found) == 2
    assert all(WHOLE in record.outcomes for _, record in found)


def test_a_pair_in_bfloat16_is_measured_as_well(tmp_path: Path) -> None:
    folder = str(save_tiny_model(tmp_path))
    found = load_pair(folder, folder, None, Hosting("cpu", "bfloat16", 1))
    pair = replace(found, heads=fitted_heads(found.cloud, found.model, MANY))
    study = Study(pair, FEW, None)
    _ran(study, EXAMPLES)
    assert {row.n for row in study.rows()} == {4}
    assert kv_cosines(pair, EXAMPLES[:1])[-1].keys == pytest.approx(1.0, abs=1e-2)


def test_an_unknown_selector_is_refused_by_name(pair: Pair) -> None:
    with pytest.raises(RequestError, match="minilm"):
        Study(pair, Plan((0.5,), selectors=frozenset({"minilm"})), None)


def test_a_model_is_like_itself(pair: Pair) -> None:
    rows = kv_cosines(pair, EXAMPLES[:2])
    assert [row.layer for row in rows] == [*range(LAYERS), None]
    for row in rows:
        figures = (row.keys, row.values, row.centred_keys, row.centred_values)
        assert all(abs(figure - 1) < 1e-4 for figure in figures)


def test_heads_are_fitted_on_articles_that_are_not_measured(pair: Pair) -> None:
    fitted, rest = with_fitted_heads(replace(pair, heads=None), MANY)
    assert fitted.heads is not None
    assert 0 < len(rest) < len(MANY)


def test_batched_and_single_fits_agree(pair: Pair) -> None:
    one_by_one = fitted_heads(pair.cloud, None, MANY)
    assert pair.heads is not None
    assert torch.allclose(one_by_one.weights, pair.heads.weights, atol=1e-3)


def test_kv_select_counts_indices_and_coded_positions(pair: Pair) -> None:
    study = Study(pair, FEW, None)
    _ran(study, EXAMPLES[:1])
    outcomes = study.records[question_key(EXAMPLES[0])].outcomes
    selected = outcomes[Way(Mode.KV_SELECT, Execution.EVICT, 0.5, "cloud", "int8_groups")]
    whole = outcomes[Way(Mode.KV_INT8, Execution.EVICT, 1.0, "all", "int8_groups")]
    cached = len(pair.cloud.prompt.context_tokens(EXAMPLES[0].context))
    assert whole.payload_bytes == INT8_GROUPS.encoded_bytes(pair.cloud.geometry, cached)
    assert 0.4 * whole.payload_bytes < selected.payload_bytes < 0.7 * whole.payload_bytes

"""Answers from coded caches: what a cloud that decoded an edge's blocks would answer."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edge_agent.planning import TRANSFORM_BLOCK_TOKENS
from scout_core.codec.base import geometry_of
from scout_core.codec.transform import TransformCodec
from scout_core.codec.transform_basis import TransformBasis
from scout_core.codec.transform_importance import grades_of
from scout_core.evaluation.codec_coded import Coded, Contender, ExactCache
from scout_core.evaluation.dataset import Example
from scout_core.evaluation.quality_answers import prefill
from scout_core.evaluation.quality_batches import Budget
from scout_core.evaluation.quality_case import case_of
from scout_core.evaluation.quality_codecs import contender_of
from scout_core.evaluation.quality_coded import CodedAnswer, CodedJob, coded_answers
from scout_core.evaluation.quality_decoding import MAX_ANSWER_TOKENS, Slice
from scout_core.evaluation.quality_models import Hosting, Pair, load_pair
from scout_core.sampling import SamplingOptions
from tests.support.tiny_models import CORPUS, save_tiny_model
from tests.support.tiny_transform import tiny_basis

EXAMPLES = tuple(
    Example(" ".join((*CORPUS[:count], *CORPUS)), question, ("",), "g", "tiny", str(count))
    for count, question in enumerate(("Who built the lighthouse?", "What was converted?"))
)


@dataclass(frozen=True, slots=True)
class Sending:
    """A tiny pair, its basis, and a slice of questions about contexts of several blocks."""

    pair: Pair
    basis: TransformBasis
    part: Slice
    jobs: tuple[CodedJob, ...]


@pytest.fixture(scope="module")
def sending(tmp_path_factory: pytest.TempPathFactory) -> Sending:
    folder = str(save_tiny_model(tmp_path_factory.mktemp("tiny")))
    pair = load_pair(folder, folder, None, Hosting("cpu", "float32", 1))
    # Coarse and graded, so that a position coded at another place's depth is another cache.
    basis = replace(tiny_basis(pair.cloud), int4_level=14, graded_level=16)
    cases = [case_of(pair, example) for example in EXAMPLES]
    head = tuple(pair.cloud.prompt.head_tokens)
    with torch.no_grad():
        full = prefill(pair.model, [[*head, *case.tokens] for case in cases])
    jobs = tuple(
        CodedJob(question, np.arange(0, len(case.tokens), step), _importance(len(case.tokens)))
        for question, case in enumerate(cases)
        for step in (1, 2)
    )
    return Sending(pair, basis, Slice(pair.model, head, cases, full), jobs)


def _importance(count: int) -> NDArray[np.float64]:
    return np.random.default_rng(count).exponential(size=count) ** 3


def _as_an_edge_sends(sending: Sending, job: CodedJob, codec: str) -> tuple[list[int], int]:
    """Head and selection in wire blocks, decoded block by block by the cloud's engine; the answer
    and the bytes of blocks behind the head."""
    engine, basis = sending.pair.cloud, sending.basis
    case = sending.part.cases[job.question]
    head = len(sending.part.head)
    whole = engine.new_cache()
    engine.prefill(whole, (*sending.part.head, *case.tokens))
    places = np.concatenate([np.arange(head), head + job.kept])
    kv = engine.evict(whole, places.tolist()).tensor(0, len(places))
    grades = np.zeros(len(places), dtype=np.int8)
    grades[head:] = grades_of(job.importance[job.kept])
    graded = codec == "transform_graded"
    level = basis.graded_level if graded else basis.int4_level
    read, sent = [kv[:, :, :, :head]], 0
    for start in range(head, len(places), TRANSFORM_BLOCK_TOKENS):
        block = slice(start, min(start + TRANSFORM_BLOCK_TOKENS, len(places)))
        of_block = grades[block] if graded else None
        coder = TransformCodec.at(basis, level, places[block].tolist(), of_block)
        payload = coder.encode(kv[:, :, :, block])
        sent += len(payload)
        read.append(coder.decode(payload, basis.geometry, len(places[block])))
    cache = engine.new_cache()
    received = torch.cat([part.float() for part in read], dim=3)
    engine.inject_selected(cache, places.tolist(), received, head + len(case.tokens))
    options = SamplingOptions(max_tokens=MAX_ANSWER_TOKENS)
    decoder = engine.decoder(cache, case.tail, options)
    ids: list[int] = []
    while (token := decoder.step()) is not None:
        ids.append(token.token_id)
    return ids, sent


@pytest.mark.parametrize("codec", ["transform", "transform_graded"])
def test_answers_are_those_of_a_cloud_that_read_an_edges_blocks(
    sending: Sending, codec: str
) -> None:
    contender = contender_of(codec, sending.basis)
    found = coded_answers(sending.part, sending.jobs, contender, Budget(600, 600, 900))
    for job, answer in zip(sending.jobs, found, strict=True):
        ids, sent = _as_an_edge_sends(sending, job, codec)
        assert answer.ids == ids
        assert answer.cache_bytes == pytest.approx(sent, rel=0.1)


def test_every_job_is_coded_at_its_positions_with_its_importance(sending: Sending) -> None:
    seen: list[ExactCache] = []

    def noting(cache: ExactCache) -> Coded:
        seen.append(cache)
        return Coded(cache.kv, len(seen))

    contender = Contender("noting", "noting", "ours", noting)
    answers = coded_answers(sending.part, sending.jobs, contender, Budget(600, 600, 900))
    assert all(isinstance(answer, CodedAnswer) for answer in answers)
    assert sorted(answer.cache_bytes for answer in answers) == [1, 2, 3, 4]
    head = len(sending.part.head)
    by_bytes = {answer.cache_bytes: job for job, answer in zip(sending.jobs, answers, strict=True)}
    for place, cache in enumerate(seen, start=1):
        job = by_bytes[place]
        assert list(cache.positions) == (head + job.kept).tolist()
        assert cache.attention is not None
        assert cache.attention.tolist() == job.importance[job.kept].tolist()
        assert geometry_of(cache.kv) == sending.pair.cloud.geometry
        assert cache.kv.shape[3] == len(job.kept)

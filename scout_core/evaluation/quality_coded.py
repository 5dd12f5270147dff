"""Answers from caches as the cloud would read them from KV modes' payloads.

Owns the batches: the selected columns of prefilled contexts go through a codec one by one, as
requests do, and are answered together. Knows token ids, no text and no modes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scout_core.evaluation.codec_coded import Contender, ExactCache
from scout_core.evaluation.codec_prefix import cache_rows, code_in_place
from scout_core.evaluation.quality_answers import Prefix, continued_tails, evicted
from scout_core.evaluation.quality_batches import Budget, by_length
from scout_core.evaluation.quality_decoding import MAX_ANSWER_TOKENS, Slice


@dataclass(frozen=True, slots=True)
class CodedJob:
    """Answer one question of a slice from its coded positions.

    Args:
        kept: context positions ``[k]``, ascending.
        importance: ``[context tokens]``, of each for this question
            (``scout_core.selection.importance``); what graded codecs follow.
    """

    question: int
    kept: NDArray[np.int64]
    importance: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CodedAnswer:
    """Token ids of an answer, and the bytes of the cache that it was read from."""

    ids: list[int]
    cache_bytes: int


def coded_answers(
    part: Slice, jobs: Sequence[CodedJob], contender: Contender, budget: Budget
) -> list[CodedAnswer]:
    """The answer of every job, in the jobs' order.

    The template's head stays exact: edges send it coded, but a calibrated transform knows its rows.
    """
    found: dict[int, CodedAnswer] = {}
    start = len(part.head)
    tails = [part.cases[job.question].tail for job in jobs]
    room = MAX_ANSWER_TOKENS + max(len(tail) for tail in tails)
    lengths = [start + len(job.kept) + room for job in jobs]
    for index in by_length(lengths, budget.decode_tokens):
        batch = [jobs[i] for i in index]
        columns = [[*range(start), *(start + job.kept).tolist()] for job in batch]
        prefix = evicted(part.full, columns, [job.question for job in batch], room)
        sizes = code_in_place(prefix, start, _caches(prefix, start, batch), contender)
        answers = continued_tails(
            part.model,
            prefix,
            [tails[i] for i in index],
            [part.starts[job.question] for job in batch],
            MAX_ANSWER_TOKENS,
        )
        for place, ids, size in zip(index, answers, sizes, strict=True):
            found[place] = CodedAnswer(ids, round(size))
    return [found[place] for place in range(len(jobs))]


def _caches(prefix: Prefix, start: int, batch: Sequence[CodedJob]) -> list[ExactCache]:
    """The kept positions' caches, without the head."""
    return [
        ExactCache(
            kv[:, :, :, start:].contiguous(),
            start,
            job.importance[job.kept],
            start + job.kept,
        )
        for kv, job in zip(cache_rows(prefix), batch, strict=True)
    ]

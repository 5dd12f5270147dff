"""Answers of many selections of many questions, each computed once and in full batches.

Owns the cutting of decodes into batches that fit the device. Jobs that ask for the same columns of
the same question in the same execution are one job. Knows token ids, no text and no scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scout_core.evaluation.quality_answers import (
    Model,
    Prefix,
    continued_tails,
    evicted,
    sparse_answers,
)
from scout_core.evaluation.quality_batches import Budget, by_length
from scout_core.evaluation.quality_case import Case
from scout_core.modes import Execution

MAX_ANSWER_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Job:
    """Answer one question of a slice from the kept context positions ``[k]``."""

    question: int
    execution: Execution
    kept: NDArray[np.int64]

    @property
    def key(self) -> tuple[int, Execution, bytes]:
        return self.question, self.execution, self.kept.tobytes()


@dataclass(frozen=True, slots=True)
class Slice:
    """Questions whose whole prefixes are held, with what answering needs.

    ``full`` has a batch row per case: head and context.
    """

    model: Model
    head: tuple[int, ...]
    cases: Sequence[Case]
    full: Prefix

    @property
    def starts(self) -> list[int]:
        """The position of every tail's first token."""
        return [len(self.head) + len(case.tokens) for case in self.cases]


def answers_of(part: Slice, jobs: Sequence[Job], budget: Budget) -> list[list[int]]:
    """Token ids of every job's answer, in the jobs' order."""
    unique = list({job.key: job for job in jobs}.values())
    found: dict[tuple[int, Execution, bytes], list[int]] = {}
    for execution in Execution:
        mine = [job for job in unique if job.execution is execution]
        for index in _batches(part, mine, execution, budget.decode_tokens):
            batch = [mine[i] for i in index]
            match execution:
                case Execution.EVICT:
                    answers = _evicted(part, batch)
                case Execution.SPARSE:
                    answers = _sparse(part, batch, budget.pass_tokens)
            for job, answer in zip(batch, answers, strict=True):
                found[job.key] = answer
    return [found[job.key] for job in jobs]


def _batches(
    part: Slice, jobs: Sequence[Job], execution: Execution, decode_tokens: int
) -> list[list[int]]:
    """Rows of like cost together: an evicted one runs its tail, a sparse one all its tokens.

    On a GPU a batch's cost is its number of steps, so as many rows as its memory takes.
    """
    fixed = len(part.head) + MAX_ANSWER_TOKENS
    columns = [len(job.kept) + len(part.cases[job.question].tail) + fixed for job in jobs]
    if execution is Execution.SPARSE or part.model.device.type != "cpu":
        return by_length(columns, decode_tokens)
    order = sorted(range(len(jobs)), key=lambda i: len(part.cases[jobs[i].question].tail))
    batches: list[list[int]] = []
    widest = 0
    for index in order:
        widest = max(widest, columns[index])
        if batches and widest * (len(batches[-1]) + 1) <= decode_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
            widest = columns[index]
    return batches


def _evicted(part: Slice, jobs: Sequence[Job]) -> list[list[int]]:
    start = len(part.head)
    owners = [job.question for job in jobs]
    tails = [part.cases[owner].tail for owner in owners]
    room = max(len(tail) for tail in tails) + MAX_ANSWER_TOKENS
    columns = [[*range(start), *(start + job.kept).tolist()] for job in jobs]
    prefix = evicted(part.full, columns, owners, room)
    starts = [part.starts[owner] for owner in owners]
    return continued_tails(part.model, prefix, tails, starts, MAX_ANSWER_TOKENS)


def _sparse(part: Slice, jobs: Sequence[Job], pass_tokens: int) -> list[list[int]]:
    start = len(part.head)
    rows: list[list[int]] = []
    places: list[list[int]] = []
    for job in jobs:
        case, after = part.cases[job.question], part.starts[job.question]
        rows.append([*part.head, *(case.tokens[i] for i in job.kept.tolist()), *case.tail])
        tail = range(after, after + len(case.tail))
        places.append([*range(start), *(start + job.kept).tolist(), *tail])
    return sparse_answers(part.model, rows, places, MAX_ANSWER_TOKENS, pass_tokens)

"""Let the trained teacher write passages and questions, and keep those it answers as intended.

    python -m scout_core.evaluation.training.teacher_questions TEACHER DATA OUT --part I/N

TEACHER is the folder that ``teacher_training`` wrote. Part I of N (several run side by side on one
GPU) writes ``OUT/taught-I.jsonl.gz`` and ``OUT/taught-I.json`` (counts) after every round: first
about passages of training articles, then about the teacher's own, until the time is up. No question
is about a held-out article. A passage is read once for all that is asked about it in a batch. A
part takes some 0.2 MB of the GPU's memory for each of ``--tokens``; one alone keeps an H200 busy.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer

from scout_core.evaluation.dataset import Example, part_of
from scout_core.evaluation.metrics import answer_f1, normalised
from scout_core.evaluation.quality_answers import (
    Model,
    Pick,
    Prefix,
    continued_tails,
    evicted,
    likeliest,
    prefill_in_passes,
)
from scout_core.evaluation.quality_batches import PASS_TOKENS, by_length
from scout_core.evaluation.training.corpus import long_splits, short_splits, writing_passages
from scout_core.evaluation.training.prompts import Prompter
from scout_core.evaluation.training.sampling import Draw, drawing, sampled
from scout_core.evaluation.training.synthetic import KEPT_F1
from scout_core.evaluation.training.teacher import load_teacher
from scout_core.evaluation.training.teacher_tasks import (
    KINDS,
    STYLES,
    Passage,
    parsed_passage,
    parsed_question,
    passage_prefix,
    passage_prompt,
    question_tail,
)
from scout_core.evaluation.training.write_questions import save_examples

PASSAGE_DRAW = Draw(temperature=1.0, top_p=0.97, max_new=260)
QUESTION_DRAW = Draw(temperature=0.9, top_p=0.95, max_new=56)
ANSWER_TOKENS = 20
LONGEST_PREFIX = 440
COPIES = {"wiki": 4, "squad": 3, "nq": 4, "covid": 1, "own": 3}
"""Questions asked for about a passage; SQuAD passages are listed four times."""
ROUND = 1_500
"""Passages of a round: what is done when the time is up is kept."""


@dataclass(frozen=True, slots=True)
class Author:
    """The teacher with what it needs to write."""

    model: Model
    prompter: Prompter
    generator: torch.Generator
    """On the model's device."""
    tokens: int
    """Of prompts and continuations in a batch."""


def own_passages(author: Author, count: int, generator: random.Random) -> list[Passage]:
    """Passages of the teacher's own, without repeats."""
    kinds = [generator.choice(sorted(KINDS)) for _ in range(count)]
    prompts = [passage_prompt(author.prompter, kind) for kind in kinds]
    texts = sampled(
        author.model,
        prompts,
        PASSAGE_DRAW,
        seed=generator.getrandbits(32),
        token_budget=author.tokens,
    )
    found = [
        parsed_passage(kind, author.prompter.text(ids))
        for kind, ids in zip(kinds, texts, strict=True)
    ]
    return list(dict.fromkeys(("own", pair[1]) for pair in found if pair is not None))


def questions_about(
    author: Author, passages: Sequence[Passage], generator: random.Random, part: int
) -> tuple[int, list[Example]]:
    """Questions in a random style each: how many parsed, and those answered as intended."""
    read = [(kind, text, passage_prefix(author.prompter, text)) for kind, text in passages]
    read = [row for row in read if len(row[2]) < LONGEST_PREFIX]
    room = QUESTION_DRAW.max_new + 40
    sizes = [(len(prefix) + room) * COPIES[kind] for kind, _, prefix in read]
    written, kept = 0, list[Example]()
    pick = drawing(QUESTION_DRAW, author.generator)
    for index in by_length(sizes, author.tokens):
        batch = [read[i] for i in index]
        prefixes = [prefix for _, _, prefix in batch]
        cache = prefill_in_passes(author.model, prefixes, PASS_TOKENS[author.model.device.type])
        wanted = [
            (row, generator.choice(sorted(STYLES)))
            for row, (kind, _, _) in enumerate(batch)
            for _ in range(COPIES[kind])
        ]
        tails = [question_tail(author.prompter, style) for _, style in wanted]
        texts = _after(
            author, cache, [row for row, _ in wanted], tails, QUESTION_DRAW.max_new, pick
        )
        found: dict[tuple[int, str], Example] = {}
        for (row, style), text in zip(wanted, texts, strict=True):
            name = f"{part}-{generator.getrandbits(32):08x}"
            example = parsed_question(style, batch[row][1], text, name)
            if example is not None:
                found.setdefault((row, normalised(example.question)), example)
        written += len(found)
        kept += _agreed(author, cache, found)
    return written, kept


def _agreed(author: Author, cache: Prefix, found: dict[tuple[int, str], Example]) -> list[Example]:
    """The examples, by the cache's row, that the teacher answers as intended."""
    if not found:
        return []
    tails = [author.prompter.tail(example.question) for example in found.values()]
    rows = [row for row, _ in found]
    answers = _after(author, cache, rows, tails, ANSWER_TOKENS, likeliest)
    return [
        example
        for example, answer in zip(found.values(), answers, strict=True)
        if answer_f1(answer, example.answers) >= KEPT_F1
    ]


def _after(
    author: Author,
    cache: Prefix,
    rows: Sequence[int],
    tails: Sequence[list[int]],
    most: int,
    pick: Pick,
) -> list[str]:
    """What follows each tail behind its row of the cache, as text."""
    counts = cache.lengths.tolist()
    whole = [range(counts[row]) for row in rows]
    room = max(len(tail) for tail in tails) + most
    prefix = evicted(cache, whole, rows, room)
    starts = [counts[row] for row in rows]
    found = continued_tails(author.model, prefix, tails, starts, most, pick)
    return [author.prompter.text(ids) for ids in found]


def rounds(
    author: Author, given: Sequence[Passage], generator: random.Random
) -> Iterator[list[Passage]]:
    """Passages for every round: the given ones, then the teacher's own without end."""
    shuffled = list(given)
    generator.shuffle(shuffled)
    for begin in range(0, len(shuffled), ROUND):
        yield shuffled[begin : begin + ROUND]
    while True:
        yield own_passages(author, ROUND, generator)


def main() -> None:
    parser = argparse.ArgumentParser(description="Let the teacher write passages and questions.")
    parser.add_argument("teacher", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--part", default="1/1", help="I/N")
    parser.add_argument("--seed", type=int, default=0, help="another one writes others")
    parser.add_argument("--seconds", type=float, default=200.0)
    parser.add_argument("--tokens", type=int, default=300_000, help="in a batch; memory follows")
    options = parser.parse_args()
    started = time.perf_counter()
    short, long = short_splits(options.data), long_splits(options.data)
    listed = writing_passages(options.data, short, long, options.seed)
    given = part_of([pair for pair in listed if pair[0] != "prose"], options.part)
    part = int(options.part.partition("/")[0])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cuda.enable_cudnn_sdp(False)  # it plans anew for every length
    generator = random.Random(f"{options.seed}/{part}")  # noqa: S311 - reproducible, no secret
    prompter = Prompter(Tokenizer.from_file(str(options.teacher / "tokenizer.json")))
    model = load_teacher(options.teacher, device, prompter.ids("<|im_end|>")[0])
    drawn = torch.Generator(device).manual_seed(generator.getrandbits(32))
    author = Author(model, prompter, drawn, options.tokens)
    options.out.mkdir(parents=True, exist_ok=True)
    counts = {"passages": 0, "written": 0, "kept": 0}
    kept: dict[tuple[str, str], Example] = {}
    for passages in rounds(author, given, generator):
        written, agreed = questions_about(author, passages, generator, part)
        for example in agreed:
            kept.setdefault((example.context, normalised(example.question)), example)
        counts["passages"] += len(passages)
        counts["written"] += written
        counts["kept"] = len(kept)
        save_examples(options.out / f"taught-{part}.jsonl.gz", list(kept.values()))
        (options.out / f"taught-{part}.json").write_text(json.dumps(counts), encoding="utf-8")
        spent = time.perf_counter() - started
        sys.stderr.write(f"{spent:.0f} s: {counts}; {[e.question for e in agreed[-2:]]}\n")
        if spent > options.seconds:
            break


if __name__ == "__main__":
    main()

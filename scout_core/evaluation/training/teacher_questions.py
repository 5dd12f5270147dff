"""Let the trained teacher write passages and questions, and keep those it answers as intended.

    python -m scout_core.evaluation.training.teacher_questions TEACHER DATA OUT --part I/N

TEACHER is the folder that ``teacher_training`` wrote. Part I of N (several run side by side on one
GPU) writes ``OUT/taught-I.jsonl.gz`` and ``OUT/taught-I.json`` (counts). Questions are about
passages of training articles and of the teacher's own, none about a held-out article.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from scout_core.evaluation.dataset import Example
from scout_core.evaluation.metrics import answer_f1, normalised
from scout_core.evaluation.training.corpus import long_splits, short_splits, writing_passages
from scout_core.evaluation.training.prompts import Prompter
from scout_core.evaluation.training.sampling import Draw
from scout_core.evaluation.training.synthetic import KEPT_F1
from scout_core.evaluation.training.teacher import continued, load_teacher
from scout_core.evaluation.training.teacher_tasks import (
    KINDS,
    STYLES,
    Passage,
    parsed_passage,
    parsed_question,
    passage_prompt,
    question_prompt,
    reading_prompt,
)
from scout_core.evaluation.training.write_questions import save_examples

PASSAGE_TOKENS = 260
QUESTION_TOKENS = 56
ANSWER_TOKENS = 20
LONGEST_PROMPT = 480
COPIES = {"wiki": 4, "squad": 3, "nq": 4, "covid": 1, "own": 3}
"""Questions asked for about a passage; SQuAD passages are listed four times."""
SLICE = 3_000
"""Questions written before they are answered: what is done when the time is up is kept."""


@dataclass(frozen=True, slots=True)
class Author:
    """The teacher with what it needs to write."""

    model: Any
    prompter: Prompter
    tokens: int
    """In a batch."""

    def texts(self, prompts: Sequence[list[int]], draw: Draw | None, most: int) -> list[str]:
        stop = self.prompter.ids("<|im_end|>")[0]
        found = continued(self.model, prompts, draw, stop, most=most, tokens=self.tokens)
        return [self.prompter.text(ids) for ids in found]


def own_passages(author: Author, count: int, generator: random.Random) -> list[Passage]:
    """Passages of the teacher's own, without repeats."""
    kinds = [generator.choice(sorted(KINDS)) for _ in range(count)]
    draw = Draw(temperature=1.0, top_p=0.97, max_new=PASSAGE_TOKENS)
    prompts = [passage_prompt(author.prompter, kind) for kind in kinds]
    texts = author.texts(prompts, draw, PASSAGE_TOKENS)
    found = [parsed_passage(kind, text) for kind, text in zip(kinds, texts, strict=True)]
    return list(dict.fromkeys(("own", pair[1]) for pair in found if pair is not None))


def asked(
    author: Author, passages: Sequence[Passage], generator: random.Random, part: int
) -> list[Example]:
    """Questions about the passages that parse, in a random style each."""
    wanted = [(passage, generator.choice(sorted(STYLES))) for _, passage in passages]
    prompts = [question_prompt(author.prompter, passage, style) for passage, style in wanted]
    short = [i for i, prompt in enumerate(prompts) if len(prompt) < LONGEST_PROMPT]
    draw = Draw(temperature=0.9, top_p=0.95, max_new=QUESTION_TOKENS)
    texts = author.texts([prompts[i] for i in short], draw, QUESTION_TOKENS)
    found: dict[tuple[str, str], Example] = {}
    for i, text in zip(short, texts, strict=True):
        passage, style = wanted[i]
        example = parsed_question(style, passage, text, f"{part}-{generator.getrandbits(32):08x}")
        if example is not None:
            found.setdefault((passage, normalised(example.question)), example)
    return list(found.values())


def agreed(author: Author, examples: Sequence[Example]) -> list[Example]:
    """The examples that the teacher answers as intended."""
    prompts = [reading_prompt(author.prompter, e.context, e.question) for e in examples]
    answers = author.texts(prompts, None, ANSWER_TOKENS)
    return [
        example
        for example, answer in zip(examples, answers, strict=True)
        if answer_f1(answer, example.answers) >= KEPT_F1
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Let the teacher write passages and questions.")
    parser.add_argument("teacher", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--part", default="1/1", help="I/N")
    parser.add_argument("--passages", type=int, default=8_000, help="of its own, over all parts")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--tokens", type=int, default=120_000, help="in a batch")
    options = parser.parse_args()
    part, parts = (int(number) for number in options.part.split("/"))
    started = time.perf_counter()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(part)
    generator = random.Random(part)  # noqa: S311 - a reproducible draw, not a secret
    tokenizer: Any = AutoTokenizer.from_pretrained(options.teacher)
    author = Author(
        load_teacher(options.teacher, device), Prompter(tokenizer.backend_tokenizer), options.tokens
    )
    options.out.mkdir(parents=True, exist_ok=True)
    short, long = short_splits(options.data), long_splits(options.data)
    given = [p for p in writing_passages(options.data, short, long, 0) if p[0] != "prose"]
    own = own_passages(author, options.passages // parts, generator)
    sys.stderr.write(f"{len(own)} passages, {time.perf_counter() - started:.0f} s: {own[:2]}\n")
    passages = [pair for pair in (*given[part - 1 :: parts], *own) for _ in range(COPIES[pair[0]])]
    generator.shuffle(passages)
    written, kept = 0, list[Example]()
    for begin in range(0, len(passages), SLICE):
        if time.perf_counter() - started > options.seconds:
            break
        examples = asked(author, passages[begin : begin + SLICE], generator, part)
        written += len(examples)
        kept += agreed(author, examples)
        spent = time.perf_counter() - started
        sys.stderr.write(f"{begin + SLICE} of {len(passages)}: {len(kept)} kept, {spent:.0f} s\n")
        save_examples(options.out / f"taught-{part}.jsonl.gz", kept)
    counts = {"own passages": len(own), "written": written, "kept": len(kept)}
    sys.stderr.write(f"{[(e.question, e.answers) for e in kept[:8]]}\n")
    (options.out / f"taught-{part}.json").write_text(json.dumps(counts), encoding="utf-8")


if __name__ == "__main__":
    main()

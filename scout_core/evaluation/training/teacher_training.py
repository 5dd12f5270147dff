"""Train the teacher: to read as people do, to write passages, to write questions.

    python -m scout_core.evaluation.training.teacher_training GGUF DATA OUT

GGUF is the teacher's file (``teacher.py`` says where it is from), DATA the development data. OUT
receives the folder ``teacher`` (weights with the training inside, for ``teacher_questions``) and
``teacher.json``: the run, and F1 of its answers on tuning and test articles, which it never saw.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from scout_core.evaluation.dataset import Example
from scout_core.evaluation.metrics import answer_f1
from scout_core.evaluation.quality_answers import Model
from scout_core.evaluation.training.corpus import long_splits, short_splits, training_paragraphs
from scout_core.evaluation.training.prompts import Prompter
from scout_core.evaluation.training.sampling import greedy
from scout_core.evaluation.training.teacher import (
    load_teacher,
    read_teacher,
    save_teacher,
    train_teacher,
)
from scout_core.evaluation.training.teacher_tasks import Passage, lessons, reading_prompt, style_of

LONGEST_PASSAGE = 1200
"""Characters of a passage to learn from."""
WIKI_PASSAGES = 900
"""Of thousands: as many as of the other kinds together."""
MOST_ANSWER_TOKENS = 20


def model_passages(data: Path, seed: int) -> list[Passage]:
    """Titles and texts of training articles."""
    short, long = short_splits(data), long_splits(data)
    found: dict[str, str] = {}
    for row in short.train:
        kind = style_of(row)
        title = row.group.split(":", 1)[1].replace("_", " ")
        found[row.context if kind == "nq" else f"{title}\n{row.context}"] = kind
    wiki = [f"{title}\n{text}" for title, text in training_paragraphs(short, long)]
    random.Random(seed).shuffle(wiki)  # noqa: S311 - a reproducible draw, not a secret
    found |= dict.fromkeys(wiki[:WIKI_PASSAGES], "wiki")
    return [(kind, text) for text, kind in found.items() if len(text) < LONGEST_PASSAGE]


def reading_score(
    model: Model, prompter: Prompter, rows: Sequence[Example], tokens: int
) -> dict[str, float]:
    """Mean F1 of answers to the answerable rows, in all and by source."""
    asked = [row for row in rows if row.answers]
    prompts = [reading_prompt(prompter, row.context, row.question) for row in asked]
    answers = greedy(model, prompts, max_new=MOST_ANSWER_TOKENS, token_budget=tokens)
    scores = [
        answer_f1(prompter.text(ids), row.answers) for ids, row in zip(answers, asked, strict=True)
    ]
    report = {"n": float(len(asked)), "f1": sum(scores) / len(scores)}
    for source in sorted({row.source for row in asked}):
        part = [s for s, row in zip(scores, asked, strict=True) if row.source == source]
        report[source] = sum(part) / len(part)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the teacher.")
    parser.add_argument("gguf", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=100.0)
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--tokens", type=int, default=8_000, help="in a batch")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    options.out.mkdir(parents=True, exist_ok=True)
    tokenizer: Any = AutoTokenizer.from_pretrained(options.gguf.parent, gguf_file=options.gguf.name)
    prompter = Prompter(tokenizer.backend_tokenizer)
    model = read_teacher(options.gguf, device)
    short = short_splits(options.data)
    material = lessons(prompter, short.train, model_passages(options.data, 1), 2)
    sys.stderr.write(f"{len(material)} lessons\n")
    figures: dict[str, Any] = train_teacher(
        model,
        material,
        token_budget=options.tokens,
        learning_rate=options.rate,
        seconds=options.seconds,
    )
    sys.stderr.write(f"{figures}\n")
    save_teacher(model, options.gguf, options.out / "teacher")
    reader = load_teacher(options.out / "teacher", device, prompter.ids("<|im_end|>")[0])
    for name, rows in (("tune", short.tune), ("test", short.test)):
        figures[name] = reading_score(reader, prompter, rows, 20 * options.tokens)
        sys.stderr.write(f"{name}: {figures[name]}\n")
    (options.out / "teacher.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

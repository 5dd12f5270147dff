"""Training questions made of others: long ones of short, short ones of long, and mismatches.

Owns how passages are embedded, which paragraphs of a long context a multi-hop question keeps, and
which COVID-QA questions are used. Knows no tokens.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from scout_core.evaluation.dataset import Example
from scout_core.evaluation.training.corpus import Splits, paragraphs

_MOST_ANSWER_WORDS = 14
_WINDOW_CHARACTERS = 1200


def covid_examples(folder: Path, long: Splits) -> list[Example]:
    """Every short COVID-QA answer of the training papers, with a window of the paper around it."""
    papers = {row.group for row in long.train if row.source == "covidqa"}
    generator = random.Random(8)  # noqa: S311 - a reproducible draw, not a secret
    found: list[Example] = []
    path = folder / "qa_long" / "all_questions_dev.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            paper = json.loads(line)
            if paper["doc_id"] not in papers:
                continue
            text = str(paper["context"])
            for asked in paper["qas"]:
                answers = tuple(str(answer).strip() for answer in asked["answers"])
                at = text.find(answers[0]) if answers and answers[0] else -1
                if at < 0 or len(answers[0].split()) > _MOST_ANSWER_WORDS:
                    continue
                begin = max(0, at - generator.randint(50, _WINDOW_CHARACTERS - 200))
                begin = text.find(" ", begin) + 1 if begin else 0
                window = text[begin : begin + _WINDOW_CHARACTERS + len(answers[0])]
                if answers[0] in window:
                    name = str(asked["id"])
                    found.append(
                        Example(window, asked["question"], answers, paper["doc_id"], "covid", name)
                    )
    return found


def supporting_examples(folder: Path, long: Splits, seed: int) -> list[Example]:
    """Multi-hop training questions over their supporting paragraphs and up to two others."""
    generator = random.Random(seed)  # noqa: S311 - a reproducible draw, not a secret
    training = {row.name: row for row in long.train if row.answers}
    out: list[Example] = []
    with (folder / "qa_long" / "dev.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            row = training.get(str(record["id"]))
            titles: set[str] = set(record.get("gold_titles") or ())
            if row is None or not titles:
                continue
            documents = paragraphs([row], least_characters=0)
            gold = [pair for pair in documents if pair[0] in titles]
            rest = [pair for pair in documents if pair[0] not in titles]
            kept = [*gold, *generator.sample(rest, min(len(rest), generator.randrange(3)))]
            generator.shuffle(kept)
            text = "\n\n".join(f"Document (Title: {title}) {body}" for title, body in kept)
            if gold and len(gold) >= len(titles):
                out.append(replace(row, context=text, source=f"{row.source}/supporting"))
    return out


def embedded_examples(
    examples: Sequence[Example], long: Splits, count: int, seed: int
) -> list[Example]:
    """``count`` answerable examples whose passage stands among 3 to 30 other paragraphs."""
    generator = random.Random(seed)  # noqa: S311 - a reproducible draw, not a secret
    distractors = [f"Document (Title: {title}) {text}" for title, text in paragraphs(long.train)]
    answerable = [example for example in examples if example.answers]
    out: list[Example] = []
    for example in generator.choices(answerable, k=count):
        others = generator.sample(distractors, generator.choice((3, 5, 8, 12, 20, 30)))
        plain = generator.random() < 0.3
        own = example.context if plain else f"Document (Title: Passage) {example.context}"
        others.insert(generator.randrange(len(others) + 1), own)
        out.append(replace(example, context="\n\n".join(others), source="mixed"))
    return out


def mismatched_examples(examples: Sequence[Example], count: int, seed: int) -> list[Example]:
    """``count`` questions over another article's passage: plainly unanswerable."""
    generator = random.Random(seed)  # noqa: S311 - a reproducible draw, not a secret
    out: list[Example] = []
    while len(out) < count:
        asked, other = generator.choice(examples), generator.choice(examples)
        said = any(answer.lower() in other.context.lower() for answer in asked.answers)
        if asked.group != other.group and not said:
            out.append(replace(asked, context=other.context, answers=(), source="mismatched"))
    return out

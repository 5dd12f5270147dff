"""Training and held-out questions as token ids with answer spans.

Owns: which rows are trained on, tuned on and tested on (whole articles, fixed seeds), passages to
write questions about, spans of the answers in tokens. Knows the tokenizer through
``Prompter``; knows no weights.
"""

from __future__ import annotations

import bisect
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scout_core.evaluation.dataset import Example, hold_out, load_examples
from scout_core.evaluation.metrics import UNANSWERABLE
from scout_core.evaluation.training.prompts import Prompter
from scout_core.selection.lexical import FEATURES, features

SPLIT_SEED = 6
LONG_SOURCES = frozenset(
    (
        "hotpotqa_distractor_dev",
        "hotpotqa_distractor_train",
        "2wikimultihopqa",
        "musique",
        "musique_train",
        "covidqa",
    )
)
_DOCUMENT = re.compile(r"Document \(Title: (.*?)\) (.*?)(?=\n\nDocument \(Title: |\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Item:
    """One question in token ids."""

    context: tuple[int, ...]
    question: str
    answers: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    """Token ranges [start, end) of answer occurrences in the context."""
    weights: tuple[float, ...]
    """How likely each occurrence is the one that was asked about; sums to 1."""
    lexical: NDArray[np.float16]
    """``[n, FEATURES]``."""
    source: str
    group: str

    @property
    def target(self) -> str:
        return self.answers[0] if self.answers else UNANSWERABLE


@dataclass(frozen=True, slots=True)
class Splits:
    """Rows by use; no article is in two of them."""

    train: tuple[Example, ...]
    tune: tuple[Example, ...]
    test: tuple[Example, ...]


def short_splits(folder: Path) -> Splits:
    """SQuAD-style and NQ rows of the short set."""
    rows = load_examples(folder / "qa_short" / "dev.jsonl")
    squad = tuple(row for row in rows if row.group.startswith("squad:"))
    natural = tuple(row for row in rows if not row.group.startswith("squad:"))
    squad_rest, squad_test = hold_out(squad, at_least=330, seed=SPLIT_SEED)
    squad_train, squad_tune = hold_out(squad_rest, at_least=100, seed=SPLIT_SEED)
    natural_rest, natural_test = hold_out(natural, at_least=300, seed=SPLIT_SEED)
    natural_train, natural_tune = hold_out(natural_rest, at_least=60, seed=SPLIT_SEED)
    return Splits(squad_train + natural_train, squad_tune + natural_tune, squad_test + natural_test)


def long_splits(folder: Path) -> Splits:
    """Multi-hop and COVID-QA rows, up to about 8k tokens."""
    rows = load_examples(folder / "qa_long" / "dev.jsonl")
    train: list[Example] = []
    tune: list[Example] = []
    test: list[Example] = []
    families: dict[str, list[Example]] = {}
    for row in rows:
        if row.source in LONG_SOURCES and len(row.context) < 34_000:
            families.setdefault(row.source.split("_")[0], []).append(row)
    for family, members in sorted(families.items()):
        wanted = 90 if family == "hotpotqa" else 50 if family == "musique" else 30
        rest, held = hold_out(members, at_least=wanted, seed=SPLIT_SEED)
        rest, tuned = hold_out(rest, at_least=8, seed=SPLIT_SEED)
        train += rest
        tune += tuned
        test += held
    return Splits(tuple(train), tuple(tune), tuple(test))


def _occurrences(context: str, answers: Sequence[str]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for answer in answers:
        if not answer.strip():
            continue
        pattern = rf"(?<!\w){re.escape(answer.strip())}(?!\w)"
        spans = [m.span() for m in re.finditer(pattern, context)]
        if not spans:
            spans = [m.span() for m in re.finditer(pattern, context, re.IGNORECASE)]
        found += spans
    return sorted(set(found))[:24]


def token_spans(
    offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Token ranges that cover character ranges."""
    starts = [start for start, _ in offsets]
    ends = [end for _, end in offsets]
    out: list[tuple[int, int]] = []
    for first, last in spans:
        begin = bisect.bisect_right(ends, first)
        end = bisect.bisect_left(starts, last)
        if begin < end:
            out.append((begin, end))
    return out


def item_of(example: Example, prompter: Prompter, limit: int = 8000) -> Item:
    """Tokenise one example; contexts are cut at ``limit`` tokens."""
    encoding = prompter.tokenizer.encode(example.context, add_special_tokens=False)
    ids = encoding.ids[:limit]
    spans = token_spans(encoding.offsets[:limit], _occurrences(example.context, example.answers))
    table = features(prompter.pieces(ids), example.question)
    coverage = table[:, FEATURES.index("sentence_coverage")]
    density = table[:, FEATURES.index("density_12")] + 4 * coverage
    heat = [float(density[begin:end].mean()) for begin, end in spans]
    weights: tuple[float, ...] = ()
    if heat:
        raised = np.exp(np.array(heat) - max(heat))
        weights = tuple(float(w) for w in raised / raised.sum())
    return Item(
        context=tuple(ids),
        question=example.question,
        answers=example.answers,
        spans=tuple(spans),
        weights=weights,
        lexical=table.astype(np.float16),
        source=example.source,
        group=example.group,
    )


def paragraphs(rows: Sequence[Example], least_characters: int = 150) -> list[tuple[str, str]]:
    """(title, text) of every document inside multi-document contexts, without repeats."""
    seen: dict[str, str] = {}
    for row in rows:
        for title, text in _DOCUMENT.findall(row.context):
            seen.setdefault(text.strip(), title)
    return [(title, text) for text, title in seen.items() if len(text) > least_characters]


def chunks(text: str, size: int) -> list[str]:
    """Plain text cut at blank lines or sentence ends into pieces of about ``size`` characters."""
    parts = re.split(r"(?<=[.!?])\s+|\n\s*\n", text)
    out: list[str] = []
    held = ""
    for part in parts:
        held = f"{held} {' '.join(part.split())}".strip()
        if len(held) >= size:
            out.append(held)
            held = ""
    return [piece for piece in out if len(piece) < 3 * size]


def training_paragraphs(short: Splits, long: Splits) -> list[tuple[str, str]]:
    """(title, text) of the long training rows, of those in no held-out row or article."""
    held = {row.group.split(":", 1)[-1].replace("_", " ") for row in (*short.test, *short.tune)}
    held_texts = {row.context for row in (*long.test, *long.tune)}
    return [
        (title, text)
        for title, text in paragraphs(long.train)
        if title not in held and not any(text in context for context in held_texts)
    ]


def writing_passages(folder: Path, short: Splits, long: Splits, seed: int) -> list[tuple[str, str]]:
    """(source, passage) to write questions about; nothing from a held-out article."""
    generator = random.Random(seed)  # noqa: S311 - a reproducible draw, not a secret
    wiki = training_paragraphs(short, long)
    out: list[tuple[str, str]] = []
    generator.shuffle(wiki)
    cursor = 0
    while cursor < len(wiki):
        take = 1 if len(wiki[cursor][1]) > 500 else generator.choice((1, 2))
        out.append(("wiki", "\n".join(text for _, text in wiki[cursor : cursor + take])))
        cursor += take
    for context in sorted({row.context for row in short.train if row.group.startswith("squad:")}):
        out += [("squad", context)] * 4
    out += [("nq", row.context) for row in short.train if row.group.startswith("nq:")]
    papers = sorted({row.context for row in long.train if row.source == "covidqa"})
    for paper in papers:
        out += [("covid", piece) for piece in chunks(paper, 900)]
    for path in sorted((folder / "haystack").glob("*.txt")):
        if "shakespeare" not in path.name:
            text = path.read_text(encoding="utf-8", errors="replace")
            pieces = chunks(text, 800)
            generator.shuffle(pieces)
            out += [("prose", piece) for piece in pieces[:350]]
    return out

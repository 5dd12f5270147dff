"""Question-answering rows: read, check, split by article.

Owns the JSONL format {context, question, answers, group?, source?, id?} and the split that keeps
every article on one side. Knows neither tokenizers nor models. An empty ``answers`` list means
that the passage does not answer the question.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from scout_core.errors import RequestError

ItemT = TypeVar("ItemT")


@dataclass(frozen=True, slots=True)
class Example:
    """One question about one passage."""

    context: str
    question: str
    answers: tuple[str, ...]
    group: str
    """The article; a split never cuts through a group."""
    source: str
    name: str

    @property
    def answerable(self) -> bool:
        return bool(self.answers)


def _texts(row: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
    value: object = row.get(key)
    if not isinstance(value, list):
        raise RequestError(f"{where}: '{key}' must be a list of texts; write [] for none.")
    items = cast(list[object], value)
    if not all(isinstance(item, str) for item in items):
        raise RequestError(f"{where}: every item of '{key}' must be a text.")
    return tuple(cast(list[str], items))


def _parsed(line: str, where: str) -> Example:
    try:
        row: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError as error:
        raise RequestError(f"{where}: not a JSON object ({error.msg}); one a line.") from error
    for key in ("context", "question"):
        if not isinstance(row.get(key), str) or not row[key].strip():
            raise RequestError(f"{where}: '{key}' must be a text that is not empty.")
    context = str(row["context"])
    digest = hashlib.sha256(context.encode()).hexdigest()[:16]
    return Example(
        context=context,
        question=str(row["question"]).strip(),
        answers=_texts(row, "answers", where),
        group=str(row.get("group") or digest),
        source=str(row.get("source") or "unnamed"),
        name=str(row.get("id") or digest),
    )


def load_examples(path: Path) -> tuple[Example, ...]:
    """Every row of a JSONL file, in file order.

    Raises:
        RequestError: the file is missing, empty or a line is malformed (named by number).
    """
    if not path.is_file():
        raise RequestError(f"No data file at '{path}': name a JSONL file with --data.")
    with path.open(encoding="utf-8") as lines:
        rows = tuple(
            _parsed(line, f"{path.name}:{number}")
            for number, line in enumerate(lines, start=1)
            if line.strip()
        )
    if not rows:
        raise RequestError(f"'{path}' has no rows: one JSON object a line is expected.")
    return rows


def part_of(items: Sequence[ItemT], part: str | None) -> list[ItemT]:
    """Every N-th item from the I-th on, for ``part`` ``I/N``; all of them for None.

    Raises:
        RequestError: not of that form.
    """
    if part is None:
        return list(items)
    match = re.fullmatch(r"(\d+)/(\d+)", part)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise RequestError(f"--part is I/N with 1 <= I <= N, such as 2/4; got '{part}'.")
    return list(items[int(match[1]) - 1 :: int(match[2])])


def data_hash(examples: Iterable[Example]) -> str:
    """Hex SHA-256 over the rows that were used, in order: what a profile names as its data."""
    digest = hashlib.sha256()
    for example in examples:
        for part in (example.context, example.question, *example.answers):
            digest.update(part.encode())
            digest.update(b"\0")
        digest.update(b"\n")
    return digest.hexdigest()


def hold_out(
    examples: Sequence[Example], *, at_least: int, seed: int
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Split off whole groups, drawn at random, until ``at_least`` answerable rows are held out.

    Returns:
        (rest, held out), each in the input's order.
    """
    groups = sorted({example.group for example in examples})
    random.Random(seed).shuffle(groups)  # noqa: S311 - a reproducible split, not a secret
    answerable: dict[str, int] = {}
    for example in examples:
        answerable[example.group] = answerable.get(example.group, 0) + example.answerable
    held: set[str] = set()
    count = 0
    for group in groups:
        if count >= at_least:
            break
        held.add(group)
        count += answerable[group]
    rest = tuple(example for example in examples if example.group not in held)
    return rest, tuple(example for example in examples if example.group in held)

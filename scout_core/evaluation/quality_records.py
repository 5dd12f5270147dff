"""What the quality study found, question by question, and the file that keeps it.

A records file is JSON lines: a first line that says what was measured with what, then a line per
question. A study that is stopped goes on from it, and files of parts that ran apart are merged by
putting one behind the other. Knows no models.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from scout_core.errors import RequestError
from scout_core.evaluation.dataset import Example
from scout_core.evaluation.quality_codecs import NO_CODEC
from scout_core.evaluation.quality_ways import Way
from scout_core.modes import Execution, Mode

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """One question in one way.

    ``f1`` and ``em`` are None where nothing was answered, ``recall`` where the passage does not
    hold the answer, ``overlap`` where there is no choice of the cloud's to compare with.
    """

    f1: float | None
    em: float | None
    recall: float | None
    overlap: float | None
    payload_bytes: int
    edge_compute: float
    cloud_compute: float


@dataclass(slots=True)
class Record:
    """One question: where it is from, how long its context is, and its outcomes by way."""

    source: str
    context_tokens: int
    outcomes: dict[Way, Outcome] = field(default_factory=dict[Way, Outcome])


Records = dict[str, Record]
"""By ``question_key``."""
Identity = Mapping[str, str | int | None]


def question_key(example: Example) -> str:
    """The same for the same question of the same passage, wherever the row stands."""
    parts = (example.name, example.context, example.question)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]


def _line(key: str, record: Record) -> str:
    outcomes = [
        {
            "mode": way.mode.value,
            "execution": way.execution.value,
            "retention": way.retention,
            "selector": way.selector,
            "codec": way.codec,
            **asdict(outcome),
        }
        for way, outcome in record.outcomes.items()
    ]
    facts = {"question": key, "source": record.source, "context_tokens": record.context_tokens}
    return json.dumps({**facts, "outcomes": outcomes})


def _merge(records: Records, row: dict[str, Any]) -> None:
    record = records.setdefault(row["question"], Record(row["source"], row["context_tokens"]))
    for found in row["outcomes"]:
        way = Way(
            Mode(found.pop("mode")),
            Execution(found.pop("execution")),
            found.pop("retention"),
            found.pop("selector"),
            found.pop("codec", NO_CODEC),
        )
        outcome = Outcome(**found)
        known = record.outcomes.get(way)
        if known is None or known.f1 is None:
            record.outcomes[way] = outcome


@dataclass(frozen=True, slots=True)
class RecordsFile:
    """A records file, and what its records must have been measured with."""

    path: Path
    identity: Identity

    def read(self) -> Records:
        """Every record of the file, parts merged; none if there is no file yet.

        Raises:
            RequestError: a line is not one of ours, or was measured with something else.
        """
        records: Records = {}
        if not self.path.is_file():
            return records
        wanted = {"format": FORMAT, **self.identity}
        with self.path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    row: dict[str, Any] = json.loads(line)
                    if "study" in row:
                        self._check(row["study"], wanted)
                    else:
                        _merge(records, row)
                except (ValueError, KeyError, TypeError) as error:
                    raise RequestError(
                        f"{self.path.name}:{number} is no record of a quality study ({error}); "
                        "name another file with --records.",
                    ) from error
        return records

    def append(self, records: Iterable[tuple[str, Record]]) -> None:
        """Writes records behind what is there."""
        fresh = not self.path.is_file()
        with self.path.open("a", encoding="utf-8") as out:
            if fresh:
                out.write(json.dumps({"study": {"format": FORMAT, **self.identity}}) + "\n")
            for key, record in records:
                out.write(_line(key, record) + "\n")

    def _check(self, found: dict[str, Any], wanted: dict[str, Any]) -> None:
        differing = sorted(key for key, value in wanted.items() if found.get(key) != value)
        if differing:
            raise RequestError(
                f"{self.path.name} was measured with another {', '.join(differing)}; "
                "name another file with --records.",
            )

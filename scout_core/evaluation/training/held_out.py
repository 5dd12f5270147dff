"""Write the held-out questions as files that ``scout eval quality`` reads.

    python -m scout_core.evaluation.training.held_out DATA OUT

OUT receives ``test.jsonl`` (short, n = 638), ``tune.jsonl`` (short, n = 229) and ``long.jsonl``
(n = 201): the answerable rows of the articles that no training saw, as the model card uses them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from scout_core.evaluation.dataset import Example
from scout_core.evaluation.training.corpus import long_splits, short_splits


def row_of(example: Example) -> str:
    """One line of the JSONL format."""
    facts = {
        "context": example.context,
        "question": example.question,
        "answers": list(example.answers),
        "group": example.group,
        "source": example.source,
        "id": example.name,
    }
    return json.dumps(facts) + "\n"


def write_rows(path: Path, examples: Sequence[Example]) -> int:
    """Writes the answerable examples; how many there were."""
    rows = [row_of(example) for example in examples if example.answerable]
    path.write_text("".join(rows), encoding="utf-8")
    return len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the held-out questions.")
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    short, long = short_splits(options.data), long_splits(options.data)
    parts = {"test": short.test, "tune": short.tune, "long": long.test}
    for name, examples in parts.items():
        path = options.out / f"{name}.jsonl"
        sys.stderr.write(f"{path.name}: {write_rows(path, examples)} rows\n")


if __name__ == "__main__":
    main()

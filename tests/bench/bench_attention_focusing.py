"""Attention focusing on three tasks, with the untuned and the tuned cloud model.

    python -m tests.bench.bench_attention_focusing DATA [--n 200] [--device cuda]

DATA holds ``qa_short`` and ``qa_long``. SQuAD-style and NQ questions are of articles that no
training saw. The third task is multi-hop questions over about 1,500 tokens: HotpotQA's rows first,
then 2WikiMultihopQA's and MuSiQue's. The tuned model is measured on those that it was not trained
on alone, of which there are a few less than 200.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scout_core.evaluation.dataset import Example
from scout_core.evaluation.quality_focusing import FocusingRow, Task, focusing
from scout_core.evaluation.quality_models import Hosting, load_pair
from scout_core.evaluation.training.corpus import Splits, long_splits, short_splits

SCOUT = "bundled:smollm2-135m-scout"
UNTUNED = "bundled:smollm2-135m"
TUNED = "bundled:smollm2-135m-qa"
RETENTIONS = (0.5, 0.25, 0.1)
MULTI_HOP = ("hotpotqa", "2wiki", "musique")
"""Sources, in the order in which their rows are taken."""
FITTED = 80
"""Multi-hop rows left to fit heads on."""


def _answerable(rows: Sequence[Example], *groups: str) -> list[Example]:
    return [row for row in rows if row.answers and row.group.startswith(groups)]


def _multi_hop(rows: Sequence[Example]) -> list[Example]:
    ordered = [row for kind in MULTI_HOP for row in rows if row.source.startswith(kind)]
    return [row for row in ordered if row.answers]


def tasks_of(short: Splits, long: Splits, most: int, *, tuned: bool) -> list[Task]:
    """Three tasks; nothing is measured that a tuned model was trained on."""
    rest = (*short.train, *short.tune)
    squad, natural = _answerable(short.test, "squad:"), _answerable(short.test, "nq:")
    seen, held = _multi_hop(long.train), _multi_hop((*long.test, *long.tune))
    measured = held if tuned else _multi_hop((*held, *seen[:-FITTED]))
    return [
        Task("SQuAD-style", squad[:most], _answerable(rest, "squad:")),
        Task("NQ", natural[:most], _answerable(rest, "nq:")),
        Task("multi-hop", measured[:most], seen[-FITTED:]),
    ]


def _note(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _facts(row: FocusingRow) -> dict[str, Any]:
    found = row.row
    return {
        "task": row.task,
        "full_f1": row.full_f1,
        "better": row.better,
        "corrected_p": row.corrected_p,
        **asdict(found),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Is the answer better with less context?")
    parser.add_argument("data", type=Path)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    short, long = short_splits(options.data), long_splits(options.data)
    report: dict[str, list[dict[str, Any]]] = {}
    for cloud in (UNTUNED, TUNED):
        pair = load_pair(cloud, SCOUT, None, Hosting(options.device, threads=options.threads))
        tasks = tasks_of(short, long, options.n, tuned=cloud == TUNED)
        report[cloud] = [_facts(row) for row in focusing(pair, tasks, RETENTIONS, _note)]
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()

"""What every training script shares: base model, workers, figures, training and measuring.

Owns the set-up of a run on one device and the full-context measure of a cloud adapter.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import pickle
import random
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scout_core.evaluation.dataset import Example
from scout_core.evaluation.metrics import answer_f1, exact_match, normalised, per_question
from scout_core.evaluation.quality_decoder import DecoderShape
from scout_core.evaluation.training.adapter import Base, LowRank, average_of
from scout_core.evaluation.training.base_weights import load_base, ready_model
from scout_core.evaluation.training.cloud import (
    Feeder,
    Mixture,
    Pointer,
    batch_loss,
)
from scout_core.evaluation.training.cloud_rows import Row, answer_row
from scout_core.evaluation.training.corpus import Item, item_of
from scout_core.evaluation.training.prompts import Prompter
from scout_core.evaluation.training.selection_study import Bench
from scout_core.evaluation.training.trainer import Schedule, optimise

RANK = 24
ALPHA = 48.0
FEWEST_KEPT = 2_000
"""Examples whose items are worth a file."""


def note(text: str) -> None:
    """Progress, to stderr."""
    sys.stderr.write(f"[{time.perf_counter():8.1f}] {text}\n")
    sys.stderr.flush()


@dataclass(slots=True)
class Visit:
    """What every step of a visit needs."""

    base: Base
    shape: DecoderShape
    prompter: Prompter
    data: Path
    out: Path
    pool: ProcessPoolExecutor
    stop: int
    figures: dict[str, Any]

    def items(self, examples: Sequence[Example]) -> list[Item]:
        """The examples as items; many are made once for all runs that share ``out``."""
        make = partial(item_of, prompter=self.prompter)
        if len(examples) < FEWEST_KEPT:
            return list(self.pool.map(make, examples, chunksize=32))
        texts = repr([(e.context, e.question, e.answers) for e in examples])
        path = self.out / f"items-{hashlib.sha256(texts.encode()).hexdigest()[:16]}.pickle"
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if path.is_file():
                return pickle.loads(path.read_bytes())  # noqa: S301 - written below, on this host
            items = list(self.pool.map(make, examples, chunksize=32))
            path.write_bytes(pickle.dumps(items))
            return items


def open_visit(base: Path, data: Path, out: Path) -> Visit:
    """Start workers before the GPU is touched, then load the base model."""
    pool = ProcessPoolExecutor(12, mp_context=get_context("fork"))
    pool.submit(int, 1).result()
    torch.manual_seed(0)
    torch.backends.cuda.enable_cudnn_sdp(False)  # it plans anew for every length
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        # What is left to the CPU are selections of a few hundred scores: threads only wait there.
        torch.set_num_threads(1)
    weights, shape, prompter = load_base(base, device)
    out.mkdir(parents=True, exist_ok=True)
    return Visit(weights, shape, prompter, data, out, pool, prompter.ids("<|im_end|>")[0], {})


def train_cloud(
    visit: Visit,
    feeder: Feeder,
    schedule: Schedule,
    start: LowRank,
    pointer: Pointer | None = None,
) -> LowRank:
    """Train ``start`` (and ``pointer``) in place; returns the adapter's moving average."""
    average = average_of(start, 0.99)
    mixture = feeder.mixture

    def loss_at(_: int) -> Tensor:
        return batch_loss(visit.base, visit.shape, (start, pointer), feeder.batch(), mixture)

    extra = [] if pointer is None else [pointer.weights]
    outcome = optimise(
        [*start.parameters(), *extra],
        loss_at,
        schedule,
        lambda: average.update(start),
    )
    note(f"trained {outcome.steps} steps in {outcome.seconds:.0f} s: {outcome.losses}")
    visit.figures.setdefault("runs", []).append(asdict(outcome))
    return average.shadow


def measure(visit: Visit, adapter: LowRank | None, items: Sequence[Item], name: str) -> float:
    """Full-context F1 and EM by source, and what happens to unanswerable questions."""
    model = ready_model(visit.base, visit.shape, adapter, visit.stop)
    bench = Bench(model, visit.prompter, items)
    whole = [list(range(len(item.context))) for item in items]
    texts = bench.answers({"full": whole})["full"]
    golds = [item.answers for item in items]
    f1 = per_question(answer_f1, texts, golds)
    em = per_question(exact_match, texts, golds)
    report: dict[str, Any] = {}
    for source in sorted({item.source for item in items}):
        for answerable in (True, False):
            chosen = [
                index
                for index, item in enumerate(items)
                if item.source == source and bool(item.answers) == answerable
            ]
            if chosen:
                key = source if answerable else f"{source}/unanswerable"
                report[key] = [len(chosen), float(f1[chosen].mean()), float(em[chosen].mean())]
    answerable_at = [i for i, item in enumerate(items) if item.answers]
    if not answerable_at:
        visit.figures[name] = report
        note(f"{name}: {json.dumps(report)}")
        return 0.0
    refused = np.mean([normalised(texts[i]) == "unanswerable" for i in answerable_at])
    report["refused_answerable"] = float(refused)
    report["answerable"] = [len(answerable_at), float(f1[answerable_at].mean())]
    visit.figures[name] = report
    note(f"{name}: {json.dumps(report)}")
    return float(f1[answerable_at].mean())


def feeder_of(
    visit: Visit,
    pools: Sequence[tuple[float, Sequence[Item]]],
    long_items: Sequence[Item],
    chat: Sequence[Row],
    mixture: Mixture,
    seed: int = 1,
) -> Feeder:
    selections = mixture.selections

    def row_of(item: Item, generator: random.Random) -> Row:
        return answer_row(item, visit.prompter, generator, selections)

    generator = random.Random(seed)  # noqa: S311 - a reproducible draw, not a secret
    return Feeder(pools, long_items, chat, mixture, row_of, generator, [])

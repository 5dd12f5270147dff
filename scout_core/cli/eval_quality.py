"""``scout eval quality``: answers by mode, retention, selector and execution, with intervals."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from scout_core.cli.eval_quality_tables import (
    answer_table,
    cosine_table,
    cost_table,
    selection_table,
)
from scout_core.codec.bases import coding_identity
from scout_core.daemon.heap import keep_all_freed_memory
from scout_core.errors import RequestError, RetentionError
from scout_core.evaluation.baselines_retrieval import load_embedder
from scout_core.evaluation.dataset import Example, load_examples, part_of
from scout_core.evaluation.quality_cosine import CosineRow, kv_cosines
from scout_core.evaluation.quality_heads import with_fitted_heads
from scout_core.evaluation.quality_identity import identity_of
from scout_core.evaluation.quality_models import Hosting, Pair, load_pair
from scout_core.evaluation.quality_plots import draw
from scout_core.evaluation.quality_records import Record, Records, RecordsFile
from scout_core.evaluation.quality_study import Plan, Study
from scout_core.evaluation.quality_table import PAPER_OVERLAP, by_source, table
from scout_core.models.bundled import profile_file
from scout_core.models.profile import Profile, read_profile
from scout_core.models.registry import BUNDLED_PREFIX, bundled_model

CLOUD_MODEL = "bundled:smollm2-135m-qa"
SCOUT_MODEL = "bundled:smollm2-135m-scout"
RECORDS_HELP = "File of what was found, question by question: what it holds is not run again."
TIME_LIMIT_HELP = "Stop measuring after so many seconds."
TRANSFORM_HELP = "Basis that KV goes through: a file, or none. Default: the cloud's bundled one."


def retention_list(text: str) -> tuple[float, ...]:
    """``0.5,0.25`` as numbers.

    Raises:
        RetentionError: not numbers in (0, 1).
    """
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise RetentionError(f"--retention takes numbers and commas, got '{text}'.") from error
    if not all(0 < value < 1 for value in values):
        raise RetentionError(f"Each --retention is between 0 and 1, got '{text}'.")
    return values


def shipped_profile(path: Path | None, scout: str, cloud: str) -> Profile | None:
    """The profile at ``path``, else the one shipped for this bundled pair, else None.

    Raises:
        ProfileError: unreadable.
    """
    if path is not None:
        return read_profile(path)
    files = [
        profile_file(bundled_model(name.removeprefix(BUNDLED_PREFIX)))
        for name in (scout, cloud)
        if name.startswith(BUNDLED_PREFIX)
    ]
    same = len(files) == 2 and files[0] == files[1]
    return read_profile(files[0]) if same and files[0] is not None else None


def chosen(examples: tuple[Example, ...], count: int, seed: int) -> list[Example]:
    """``count`` answerable rows drawn at random.

    Raises:
        RequestError: none is answerable.
    """
    answerable = [example for example in examples if example.answerable]
    if not answerable:
        raise RequestError("No row has an answer: quality is measured on answerable questions.")
    generator = random.Random(seed)  # noqa: S311 - a reproducible draw, not a secret
    return generator.sample(answerable, min(count, len(answerable)))


def pools_of(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """``NAME=SOURCE,SOURCE`` as sources by name.

    Raises:
        RequestError: not of that form.
    """
    pools: dict[str, tuple[str, ...]] = {}
    for text in texts:
        name, equals, sources = text.partition("=")
        if not name or not equals or not sources:
            raise RequestError(f"--pool is NAME=SOURCE,SOURCE; got '{text}'.")
        pools[name] = tuple(sources.split(","))
    return pools


@dataclass(frozen=True, slots=True)
class _Measured:
    """All that is reported: of the pair, all rows, and rows by source."""

    pair: Pair
    records: Records
    pools: dict[str, tuple[str, ...]]
    cosines: Sequence[CosineRow]

    def document(self) -> dict[str, Any]:
        rows = table(self.records.values())
        lengths = [record.context_tokens for record in self.records.values()]
        sources = by_source(self.records.values(), self.pools)
        return {
            "pair": self.pair.name,
            "compute_dtype": self.pair.cloud.compute_dtype,
            "device": self.pair.model.device.type,
            "kv_coding": coding_identity(self.pair.basis),
            "n": len(lengths),
            "mean_context_tokens": sum(lengths) / len(lengths),
            "full_f1": rows[0].f1,
            "paper_overlap": PAPER_OVERLAP,
            "rows": [asdict(row) for row in rows],
            "sources": {
                name: {"full_f1": part[0].f1, "rows": [asdict(row) for row in part]}
                for name, part in sources.items()
            },
            "kv_cosine": [asdict(row) for row in self.cosines],
        }

    def print(self, console: Console) -> None:
        sources = by_source(self.records.values(), self.pools)
        rows = table(self.records.values())
        tables = {**(sources if len(sources) > 1 else {}), "all questions": rows}
        for name, part in tables.items():
            answers = answer_table(name, part)
            if answers is not None:
                console.print(answers)
            console.print(selection_table(name, part))
        console.print(cost_table(rows))
        if self.cosines:
            console.print(cosine_table(self.cosines))


def _study(options: dict[str, Any], progress: Console) -> _Measured:
    """Loads, measures what the records file lacks, and gathers."""
    keep_all_freed_memory()
    limit_s: float | None = options["time_limit"]
    started_s = time.monotonic()
    examples = chosen(load_examples(options["data"]), options["count"], options["seed"])
    examples = part_of(examples, options["part"])
    retentions = retention_list(options["retention"])
    profile = shipped_profile(options["profile"], options["scout"], options["cloud"])
    hosting = Hosting(
        options["device"], options["compute_dtype"], options["threads"], options["transform"]
    )
    pair = load_pair(options["cloud"], options["scout"], profile, hosting)
    if pair.heads is None and options["fit_heads"]:
        pair, examples = with_fitted_heads(pair, examples)
        progress.print(f"The cloud's heads are fitted; {len(examples)} other questions are left.")
    elif pair.heads is None:
        progress.print("No profile: the cloud's own calibrated choice is left out (--fit-heads).")
    embedder = load_embedder(pair.model.device)
    if embedder is None:
        progress.print("The embedding baseline is left out: install scout-kv\\[evaluation].")
    wanted = frozenset(options["selectors"].split(",")) if options["selectors"] else None
    plan = Plan(
        retentions, options["seed"], options["kv_modes"], wanted, answers=options["answers"]
    )
    path: Path | None = options["records"]
    scout_heads = None if profile is None else profile.scout_head_weights
    identity = identity_of(pair, scout_heads, options["seed"])
    kept = None if path is None else RecordsFile(path, identity)
    study = Study(pair, plan, embedder, None if kept is None else kept.read())

    def note(done: int, every: int) -> bool:
        progress.print(f"{done} of {every} questions, {time.monotonic() - started_s:.0f} s")
        return limit_s is None or time.monotonic() - started_s < limit_s

    def found(records: Sequence[tuple[str, Record]]) -> None:
        if kept is not None:
            kept.append(records)

    study.run(examples, note, found)
    if not study.records:
        raise RequestError("Nothing was measured within --time-limit; give it more seconds.")
    cosines = kv_cosines(pair, examples[: options["kv_cosine"]])
    return _Measured(pair, study.records, pools_of(options["pool"]), cosines)


@click.command(name="quality")
@click.option("--data", type=click.Path(path_type=Path), required=True, help="JSONL of questions.")
@click.option("--n", "count", type=click.IntRange(1), default=100, show_default=True)
@click.option("--cloud", default=CLOUD_MODEL, show_default=True)
@click.option("--scout", default=SCOUT_MODEL, show_default=True)
@click.option("--profile", type=click.Path(path_type=Path), help="Default: the bundled pair's.")
@click.option("--fit-heads", is_flag=True, help="Without a profile: fit the cloud's heads on half.")
@click.option("--retention", default="0.5,0.25,0.1", show_default=True)
@click.option("--selectors", help="Only these, with commas. Default: all.")
@click.option("--answers/--no-answers", default=True, help="Without: recall and overlap only.")
@click.option("--kv-modes/--no-kv-modes", default=True, help="The KV modes' answers as well.")
@click.option("--kv-cosine", default=0, help="Compare the models' caches on so many questions.")
@click.option("--transform", default="", help=TRANSFORM_HELP)
@click.option("--seed", default=0, show_default=True)
@click.option("--records", type=click.Path(dir_okay=False, path_type=Path), help=RECORDS_HELP)
@click.option("--part", help="I/N: only every N-th question from the I-th on.")
@click.option("--time-limit", type=float, help=TIME_LIMIT_HELP)
@click.option("--pool", multiple=True, help="NAME=SOURCE,SOURCE: report these sources as one.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto")
@click.option("--compute-dtype", type=click.Choice(["auto", "float32", "bfloat16"]), default="auto")
@click.option("--threads", type=click.IntRange(1), help="Torch threads. Default: all cores.")
@click.option("--plots", type=click.Path(file_okay=False, path_type=Path), help="Folder for PNGs.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def command(**options: Any) -> None:
    """Answer quality by mode, retention and selector, against the whole context."""
    progress = Console(stderr=True)
    measured = _study(options, progress)
    if options["plots"] is not None:
        for path in draw(table(measured.records.values()), options["plots"]):
            progress.print(f"wrote {path.name}")
    if options["as_json"]:
        click.echo(json.dumps(measured.document()))
    else:
        measured.print(Console())

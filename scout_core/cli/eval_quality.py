"""``scout eval quality``: answers by mode, retention, selector and execution, with intervals."""

from __future__ import annotations

import json
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from scout_core.errors import RequestError, RetentionError
from scout_core.evaluation.baselines_retrieval import load_embedder
from scout_core.evaluation.dataset import Example, load_examples
from scout_core.evaluation.quality_models import Pair, load_pair
from scout_core.evaluation.quality_plots import draw
from scout_core.evaluation.quality_study import Plan, QualityRow, Study
from scout_core.models.bundled import profile_file
from scout_core.models.profile import Profile, read_profile
from scout_core.models.registry import BUNDLED_PREFIX, bundled_model

CLOUD_MODEL = "bundled:smollm2-135m-qa"
SCOUT_MODEL = "bundled:smollm2-135m-scout"


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


def shipped_profile(path: Path | None, scout: str) -> Profile | None:
    """The profile at ``path``, else the one shipped with a bundled scout, else None.

    Raises:
        ProfileError: unreadable.
    """
    if path is not None:
        return read_profile(path)
    if not scout.startswith(BUNDLED_PREFIX):
        return None
    shipped = profile_file(bundled_model(scout.removeprefix(BUNDLED_PREFIX)))
    return None if shipped is None else read_profile(shipped)


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


def _table(rows: tuple[QualityRow, ...], full_f1: float) -> Table:
    table = Table(title=f"F1 with the whole context: {full_f1:.3f}")
    for name in ("mode", "execution", "kept", "selector", "F1", "95 %", "ratio", "p"):
        table.add_column(name)
    for name in ("answer recall", "payload B", "edge", "cloud"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            row.mode,
            row.execution,
            f"{row.retention:g}",
            row.selector,
            f"{row.f1:.3f}",
            f"{row.f1_low:.3f}–{row.f1_high:.3f}",
            f"{row.ratio:.3f}",
            f"{row.p_value:.3f}",
            "" if row.answer_recall is None else f"{row.answer_recall:.2f}",
            f"{row.payload_bytes:.0f}",
            f"{row.edge_compute:.2f}",
            f"{row.cloud_compute:.2f}",
        )
    return table


def _document(pair: Pair, study: Study, rows: tuple[QualityRow, ...]) -> dict[str, Any]:
    return {
        "pair": pair.name,
        "n": rows[0].n,
        "mean_context_tokens": sum(study.lengths) / len(study.lengths),
        "full_f1": rows[0].f1,
        "paper_overlap": "0.82-0.83",
        "rows": [asdict(row) for row in rows],
    }


@click.command(name="quality")
@click.option("--data", type=click.Path(path_type=Path), required=True, help="JSONL of questions.")
@click.option("--n", "count", type=click.IntRange(1), default=100, show_default=True)
@click.option("--cloud", default=CLOUD_MODEL, show_default=True)
@click.option("--scout", default=SCOUT_MODEL, show_default=True)
@click.option("--profile", type=click.Path(path_type=Path), help="Default: the bundled one.")
@click.option("--retention", default="0.5,0.25,0.1", show_default=True)
@click.option("--selectors", help="Only these, with commas. Default: all.")
@click.option("--seed", default=0, show_default=True)
@click.option("--plots", type=click.Path(file_okay=False, path_type=Path), help="Folder for PNGs.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def command(**options: Any) -> None:
    """Answer quality by mode, retention and selector, against the whole context."""
    progress = Console(stderr=True)
    examples = chosen(load_examples(options["data"]), options["count"], options["seed"])
    retentions = retention_list(options["retention"])
    profile = shipped_profile(options["profile"], options["scout"])
    pair = load_pair(options["cloud"], options["scout"], profile)
    if pair.heads is None:
        progress.print("No profile: the cloud's own calibrated choice is left out.")
    embedder = load_embedder()
    if embedder is None:
        progress.print("The embedding baseline is left out: install scout-kv\\[evaluation].")
    wanted = frozenset(options["selectors"].split(",")) if options["selectors"] else None
    study = Study(pair, Plan(retentions, options["seed"], selectors=wanted), embedder)
    study.run(examples, lambda done, all_: progress.print(f"{done} of {all_} questions"))
    rows = study.rows()
    if options["plots"] is not None:
        for path in draw(rows, options["plots"]):
            progress.print(f"wrote {path.name}")
    if options["as_json"]:
        click.echo(json.dumps(_document(pair, study, rows)))
    else:
        Console().print(_table(rows, rows[0].f1))

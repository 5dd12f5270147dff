"""``scout bench engine``: what the models cost here, and what quantised KV changes."""

from __future__ import annotations

import json
from dataclasses import asdict

import click
from rich.console import Console
from rich.table import Table

from scout_core.cli.demo_script import QUESTIONS, document
from scout_core.engine import Engine, EngineOptions
from scout_core.engine.scouts import scorer_for
from scout_core.evaluation.engine_study import (
    LOSSY_CODECS,
    AgreementRow,
    TimingRow,
    codec_agreement,
    time_models,
)
from scout_core.evaluation.scout_cost import (
    REQUEST_LIMIT,
    SCORING_LIMIT,
    ScoutCostRow,
    scout_costs,
)


@click.command("bench engine")
@click.option("--cloud", default="bundled:smollm2-135m-qa", show_default=True)
@click.option("--scout", default="bundled:smollm2-135m-scout", show_default=True)
@click.option("--threads", type=int, default=None, help="Torch threads.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead.")
def command(cloud: str, scout: str, threads: int | None, as_json: bool) -> None:
    """Prefill, scoring and decoding times of a pair, and top-1 agreement of its lossy codecs."""
    cloud_engine = Engine.load(EngineOptions(cloud, threads=threads))
    scout_engine = Engine.load(EngineOptions(scout, threads=threads))
    scorer = scorer_for(scout_engine, None)
    question = QUESTIONS[0].question
    times = time_models(cloud_engine, scout_engine, scorer, document(), question)
    costs = scout_costs(cloud_engine, scout_engine, scorer, document(), question)
    agreement = codec_agreement(cloud_engine, document(), LOSSY_CODECS)
    if as_json:
        facts = {
            "compute_dtype": cloud_engine.compute_dtype,
            "times": [asdict(row) for row in times],
            "scout_costs": [asdict(row) for row in costs],
            "scoring_limit": SCORING_LIMIT,
            "request_limit": REQUEST_LIMIT,
            "agreement": [asdict(row) for row in agreement],
        }
        click.echo(json.dumps(facts))
        return
    _print(times, agreement, cloud_engine.compute_dtype)
    Console().print(_cost_table(costs))


def _cost_table(rows: list[ScoutCostRow]) -> Table:
    shown = Table(title="A scout request at the edge")
    for name in ("context", "question", "cloud prefill s", "scout prefill s", "request s"):
        shown.add_column(name, justify="right")
    shown.add_column(f"scoring adds (limit {SCORING_LIMIT:.0%})", justify="right")
    shown.add_column(f"of cloud prefill (limit {REQUEST_LIMIT:.0%})", justify="right")
    for row in rows:
        shown.add_row(
            str(row.context_tokens),
            str(row.question_tokens),
            f"{row.cloud_prefill_s:.3f}",
            f"{row.scout_prefill_s:.3f}",
            f"{row.request_s:.3f}",
            f"{row.scoring_share:.1%}",
            f"{row.request_share:.1%}",
        )
    return shown


def _print(times: list[TimingRow], agreement: list[AgreementRow], dtype: str) -> None:
    console = Console()
    table = Table("model", "stage", "tokens", "seconds", "of prefill", title=f"Times in {dtype}")
    for row in times:
        table.add_row(
            row.model, row.stage, str(row.tokens), f"{row.seconds:.3f}", f"{row.ratio:.0%}"
        )
    console.print(table)
    table = Table("codec", "continuations", "positions", "top-1 agreement")
    for row in agreement:
        table.add_row(
            row.codec, str(row.continuations), str(row.positions), f"{row.top1_agreement:.1%}"
        )
    console.print(table)

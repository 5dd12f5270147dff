"""``scout eval policy``: the mode policies over bandwidth traces, in virtual time."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table

from scout_core.evaluation.paper_pairs import (
    PAPER_PAIRS,
    PAPER_SCOUT_QUALITY,
    Pair,
    bundled_pair,
    paper_pair,
)
from scout_core.evaluation.policy_calibration import (
    CalibrationRow,
    calibration_rows,
    judged_transfers,
)
from scout_core.evaluation.policy_links import (
    TRACES_VARIABLE,
    Link,
    made_links,
    markov_links,
    recorded_links,
)
from scout_core.evaluation.policy_plots import draw
from scout_core.evaluation.policy_shares import fitted_shares
from scout_core.evaluation.policy_study import (
    REQUESTS_PER_LINK,
    StudyPlan,
    contenders,
    run_study,
    variants,
)
from scout_core.evaluation.policy_summary import ALL, LinkOutcomes, Ratio, cells, ratios, rows
from scout_core.evaluation.policy_workload import PAPER_WORKLOAD, Workload
from scout_core.models.bundled import profile_file
from scout_core.models.profile import read_profile
from scout_core.models.registry import bundled_model

BUNDLED_CLOUD: Final = "smollm2-135m-qa"


@click.command(name="policy")
@click.option(
    "--traces",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help=f"Folder of traces (t_s,mbps). Default: ${TRACES_VARIABLE}, else made links.",
)
@click.option("--paper", is_flag=True, help="The paper's set-up: six-state chain, three pairs.")
@click.option("--variants", "with_variants", is_flag=True, help="Ours at other targets as well.")
@click.option(
    "--requests",
    type=click.IntRange(1, 10_000),
    default=REQUESTS_PER_LINK,
    show_default=True,
    help="Requests per link and pair.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of requests.")
@click.option("--plots", type=click.Path(path_type=Path), help="Folder for the PNG pictures.")
@click.option("--fit-shares", is_flag=True, help="Only fit and print the rate experts' shares.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
def command(**options: Any) -> None:
    """Mode policies over bandwidth traces in virtual time, beside a clairvoyant oracle."""
    _run(_Options(**options))


@dataclass(frozen=True, slots=True)
class _Options:
    traces: Path | None
    paper: bool
    with_variants: bool
    requests: int
    seed: int
    plots: Path | None
    fit_shares: bool
    as_json: bool


def _run(options: _Options) -> None:
    links = _links(options)
    if options.fit_shares:
        click.echo(json.dumps({"shares": fitted_shares(links, options.seed)}))
        return
    plan = StudyPlan(
        links=links,
        pairs=_pairs(options.paper),
        contenders=(*contenders(), *(variants() if options.with_variants else ())),
        workload=PAPER_WORKLOAD if options.paper else Workload(),
        requests_per_link=options.requests,
        seed=options.seed,
    )
    results = list(run_study(plan, lambda text: click.echo(text, err=True)))
    calibration = calibration_rows(
        transfer for link in links for transfer in judged_transfers(link, options.seed)
    )
    if options.plots is not None:
        for path in draw(results, links, options.plots):
            click.echo(f"drew {path}", err=True)
    if options.as_json:
        click.echo(json.dumps(_document(plan, results, calibration)))
    else:
        _print(plan, results, calibration)


def _links(options: _Options) -> tuple[Link, ...]:
    if options.paper:
        return markov_links(options.seed)
    traces = options.traces
    if traces is None and (named := os.environ.get(TRACES_VARIABLE)):
        traces = Path(named)
    return made_links(options.seed) if traces is None else recorded_links(traces)


def _pairs(paper: bool) -> tuple[Pair, ...]:
    if not paper:
        return (_bundled(), *(paper_pair(scout, cloud) for scout, cloud in PAPER_PAIRS))
    return tuple(
        paper_pair(scout, cloud, quality)
        for quality in PAPER_SCOUT_QUALITY
        for scout, cloud in PAPER_PAIRS
    )


def _bundled() -> Pair:
    """The bundled pair with its shipped profile, if it has been calibrated."""
    file = profile_file(bundled_model(BUNDLED_CLOUD))
    if file is None:
        return bundled_pair()
    profile = read_profile(file)
    return bundled_pair(profile.quality_table(), profile.name, profile.stage_costs())


def _document(
    plan: StudyPlan, results: Sequence[LinkOutcomes], calibration: Sequence[CalibrationRow]
) -> dict[str, Any]:
    return {
        "rows": [asdict(row) for row in rows(results)],
        "ratios_to_oracle": [asdict(ratio) for ratio in ratios(results)],
        "cells": [{**asdict(cell), "reached": cell.reached} for cell in cells(results)],
        "estimator": [asdict(row) for row in calibration],
        "pairs": [{"name": pair.name, "quality": pair.quality_name} for pair in plan.pairs],
        "workload": {
            **asdict(plan.workload),
            "cloud_shares": {held.value: share for held, share in plan.workload.cloud_shares},
        },
        "links": len(plan.links),
        "requests_per_link": plan.requests_per_link,
    }


def _print(
    plan: StudyPlan, results: Sequence[LinkOutcomes], calibration: Sequence[CalibrationRow]
) -> None:
    console, found = Console(), ratios(results)
    for pair in plan.pairs:
        title = f"{pair.name} (quality: {pair.quality_name})"
        console.print(_ratio_table(title, [ratio for ratio in found if ratio.pair == pair.name]))
    console.print(_ratio_table("all pairs", [ratio for ratio in found if ratio.pair == ALL]))
    short = [cell for cell in cells(results) if not cell.reached]
    console.print(f"Cells in which ours is below the best fixed mode: {len(short)}")
    for cell in short:
        console.print(
            f"  {cell.pair} {cell.tech_class} {cell.deadline_s:g} s: ours {cell.ours:.4f}, "
            f"{cell.best_fixed_policy} {cell.best_fixed:.4f}, oracle {cell.oracle:.4f} "
            f"(difference {cell.margin_low:+.4f} to {cell.margin_high:+.4f}, n={cell.requests})"
        )
    console.print(_calibration_table(calibration))


def _ratio_table(title: str, found: Sequence[Ratio]) -> Table:
    table = Table(title=f"Of the oracle's — {title}")
    for heading in ("policy", "class", "n", "utility", "95 %", "compliance", "95 %"):
        table.add_column(heading, justify="left" if heading in ("policy", "class") else "right")
    for ratio in found:
        table.add_row(
            ratio.policy,
            ratio.tech_class,
            f"{ratio.requests:,}",
            f"{ratio.utility_ratio:.3f}",
            f"{ratio.utility_ratio_low:.3f}–{ratio.utility_ratio_high:.3f}",
            f"{ratio.compliance_ratio:.3f}",
            f"{ratio.compliance_ratio_low:.3f}–{ratio.compliance_ratio_high:.3f}",
        )
    return table


def _calibration_table(calibration: Sequence[CalibrationRow]) -> Table:
    table = Table(title="Transfer-time forecasts (pinball in log seconds)")
    for heading in ("predictor", "class", "n", "under 50 %", "under 90 %", "pinball 50", "90"):
        table.add_column(heading, justify="left" if heading in ("predictor", "class") else "right")
    for row in calibration:
        table.add_row(
            row.predictor,
            row.tech_class,
            f"{row.transfers:,}",
            f"{row.coverage['0.5']:.3f}",
            f"{row.coverage['0.9']:.3f}",
            f"{row.pinball['0.5']:.3f}",
            f"{row.pinball['0.9']:.3f}",
        )
    return table

"""``scout calibrate``: fit and measure a cloud and scout pair, write its profile."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from safetensors import SafetensorError
from safetensors.torch import load_file

from scout_core.cli.eval_quality import (
    CLOUD_MODEL,
    RECORDS_HELP,
    SCOUT_MODEL,
    TIME_LIMIT_HELP,
    TRANSFORM_HELP,
    retention_list,
)
from scout_core.daemon.heap import keep_all_freed_memory
from scout_core.engine import Engine
from scout_core.errors import ProfileError, RequestError
from scout_core.evaluation.dataset import load_examples
from scout_core.evaluation.quality_models import Hosting, load_pair
from scout_core.evaluation.quality_profile import Request, calibrate
from scout_core.evaluation.quality_promises import Run
from scout_core.models.profile import write_profile
from scout_core.selection import HeadWeights


def fitted_heads(path: Path, cloud: Engine) -> HeadWeights:
    """Weights that the training scripts wrote, ``heads`` ``[layers · heads]``.

    Raises:
        ProfileError: not such a file, or of another model.
    """
    try:
        flat = load_file(str(path))["heads"].float()
    except (OSError, KeyError, SafetensorError) as error:
        raise ProfileError(f"{path.name} holds no head weights: {error}.") from error
    if flat.numel() != cloud.layers * cloud.heads:
        raise ProfileError(f"{path.name} is not of {cloud.name}: {flat.numel()} weights.")
    return HeadWeights(flat.view(cloud.layers, cloud.heads), pool_width=1)


def _run(options: dict[str, Any], progress: Console) -> Run:
    """What there is to go on from, and until when.

    Raises:
        RequestError: a limit without a file: what was measured would be lost.
    """
    limit_s: float | None = options["time_limit"]
    if limit_s is None:
        return Run(progress.print, options["records"])
    if options["records"] is None:
        raise RequestError("--time-limit needs --records: what was measured would be lost.")
    return Run(progress.print, options["records"], time.monotonic() + limit_s)


@click.command(name="calibrate")
@click.option("--data", type=click.Path(path_type=Path), required=True, help="JSONL of questions.")
@click.option("--cloud", default=CLOUD_MODEL, show_default=True)
@click.option("--scout", default=SCOUT_MODEL, show_default=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True)
@click.option("--name", default="calibrated", show_default=True, help="The profile's name.")
@click.option("--n", "count", type=click.IntRange(20), default=200, show_default=True)
@click.option("--heads", type=click.Path(path_type=Path), help="Weights fitted by training.")
@click.option(
    "--costs/--no-costs",
    default=True,
    show_default=True,
    help="Time this host; without, daemons assume rates until they have measured their own.",
)
@click.option("--retention", default="0.5,0.25,0.1", show_default=True)
@click.option("--transform", default="", help=TRANSFORM_HELP)
@click.option("--records", type=click.Path(dir_okay=False, path_type=Path), help=RECORDS_HELP)
@click.option("--time-limit", type=float, help=TIME_LIMIT_HELP)
@click.option("--json", "as_json", is_flag=True, help="The profile on stdout as well.")
def command(**options: Any) -> None:
    """Fit head weights and measure quality and cost of a pair; write a profile."""
    keep_all_freed_memory()
    progress = Console(stderr=True)
    run = _run(options, progress)
    examples = load_examples(options["data"])
    retentions = retention_list(options["retention"])
    hosting = Hosting(transform=options["transform"])
    pair = load_pair(options["cloud"], options["scout"], None, hosting)
    described = f"{options['data'].name}, {len(examples)} rows"
    heads = None if options["heads"] is None else fitted_heads(options["heads"], pair.cloud)
    request = Request(
        options["name"], retentions, options["count"], described, heads, costs=options["costs"]
    )
    profile = calibrate(pair, examples, request, run)
    write_profile(profile, options["out"])
    progress.print(f"wrote {options['out'].name}")
    if options["as_json"]:
        click.echo(profile.model_dump_json(exclude_none=True))

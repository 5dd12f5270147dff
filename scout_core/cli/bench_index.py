"""``scout bench index``: bytes of a selection under the index codec."""

from __future__ import annotations

import json
from dataclasses import asdict

import click
from rich.console import Console
from rich.table import Table

from scout_core.evaluation.index_study import IndexRow, index_rows


@click.command(name="index")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the studied sets.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
def command(seed: int, as_json: bool) -> None:
    """Bytes of selected positions: ours, the information bound, a bitmap, int32."""
    rows = list(index_rows(seed))
    if as_json:
        click.echo(json.dumps({"rows": [asdict(row) for row in rows]}))
    else:
        Console().print(_table(rows))


def _table(rows: list[IndexRow]) -> Table:
    table = Table(title="Index codec (bytes)")
    for heading in ("positions", "kept", "set", "ours", "coded as", "bound", "bitmap", "int32"):
        table.add_column(heading, justify="left" if heading in ("set", "coded as") else "right")
    for row in rows:
        table.add_row(
            f"{row.n:,}",
            f"{row.k:,}",
            row.kind,
            f"{row.bytes:,}",
            row.coded_as,
            f"{row.bound_bytes:,}",
            f"{row.bitmap_bytes:,}",
            f"{row.int32_bytes:,}",
        )
    return table

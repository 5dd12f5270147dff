"""The study behind ``scout bench index``, and the document that scripts read."""

from __future__ import annotations

import json

from click.testing import CliRunner

from scout_core.cli.bench_index import command
from scout_core.evaluation.index_study import STUDIED, index_rows


def test_rows_cover_every_size_in_both_kinds_within_bounds() -> None:
    rows = list(index_rows(seed=3))
    assert [(row.n, row.k, row.kind) for row in rows] == [
        (n, k, kind) for n, k in STUDIED for kind in ("uniform", "clustered")
    ]
    for row in rows:
        assert row.bytes <= row.bound_bytes <= row.bitmap_bytes
        if row.kind == "clustered":
            assert row.bytes < 0.6 * row.bound_bytes


def test_json_is_one_document_and_the_papers_case_fits_23_bytes() -> None:
    result = CliRunner().invoke(command, ["--json"])
    assert result.exit_code == 0
    rows = json.loads(result.stdout)["rows"]
    first = rows[0]
    assert (first["n"], first["k"], first["int32_bytes"]) == (170, 84, 336)
    assert first["bytes"] <= 23
    assert {"kind", "bound_bytes", "bitmap_bytes"} <= set(first)


def test_equal_seeds_give_equal_rows() -> None:
    assert list(index_rows(seed=5)) == list(index_rows(seed=5))


def test_table_shows_every_row() -> None:
    result = CliRunner().invoke(command, [])
    assert result.exit_code == 0
    assert result.stdout.count("clustered") == len(STUDIED)

"""``scout bench codec``: KV codecs, rate against distortion and speed, beside their peers."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from scout_core.codec.bases import basis_of
from scout_core.codec.registry import CODECS
from scout_core.codec.transform import TransformCodec
from scout_core.codec.transform_basis import TransformBasis
from scout_core.engine.loading import load_model
from scout_core.engine.options import EngineOptions
from scout_core.evaluation.codec_contenders import PROBE_LEVEL, contenders
from scout_core.evaluation.codec_probe import CacheProbe
from scout_core.evaluation.codec_speed import SpeedRow, speed_rows
from scout_core.evaluation.codec_study import QualityRow, quality_rows, windows

TAIL_TOKENS = 48
SPEED_POSITIONS = (256, 1024)
"""Cut to the text's length."""
DEMO_DOCUMENT = Path(__file__).with_name("demo_document.txt")


@click.command(help="KV codecs: rate, distortion, speed, beside their peers.")
@click.option("--model", default="bundled:smollm2-135m", show_default=True, help="Cloud model.")
@click.option(
    "--text",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=DEMO_DOCUMENT,
    show_default="the demo's document",
    help="Text whose windows are cached and continued; it should not be a calibration text.",
)
@click.option("--context-tokens", default="240", show_default=True, help="Lengths, with commas.")
@click.option("--contexts", default=6, show_default=True, type=click.IntRange(min=1))
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
def command(model: str, text: Path, context_tokens: str, contexts: int, as_json: bool) -> None:
    """Measures every codec and peer on caches of a real model."""
    try:
        lengths = tuple(int(length) for length in context_tokens.split(","))
    except ValueError as error:
        raise click.BadParameter("give whole numbers separated by commas") from error
    loaded = load_model(EngineOptions(model), _quiet)
    probe = CacheProbe(loaded)
    basis = basis_of(loaded.fingerprint)
    if basis is None:
        _say("No transform basis for this model: its rows are missing; calibrate one first.")
    tokens: list[int] = loaded.tokenizer.backend_tokenizer.encode(
        text.read_text(encoding="utf-8"), add_special_tokens=False
    ).ids
    quality: list[QualityRow] = []
    for length in lengths:
        texts = windows(tokens, length, TAIL_TOKENS, contexts)
        if not texts:
            raise click.BadParameter(f"the text has no {length + TAIL_TOKENS} tokens")
        quality.extend(quality_rows(probe, model, texts, list(contenders(basis)), _say))
    speed = _speed(probe, tokens, basis)
    if as_json:
        rows = {
            "quality": [asdict(row) for row in quality],
            "speed": [asdict(row) for row in speed],
        }
        click.echo(json.dumps(rows))
    else:
        console = Console()
        console.print(_quality_table(quality))
        console.print(_speed_table(speed))


def _speed(probe: CacheProbe, tokens: list[int], basis: TransformBasis | None) -> list[SpeedRow]:
    """Speeds on a short and on a longer cache of the text."""
    rows: list[SpeedRow] = []
    for positions in sorted({min(wanted, len(tokens)) for wanted in SPEED_POSITIONS}):
        kv, _ = probe.prefilled(tokens[:positions])
        codecs = list(CODECS)
        if basis is not None:
            codecs.append(TransformCodec.at(basis, PROBE_LEVEL, range(positions)))
        _say(f"speed, on {kv.nbytes:,} bytes of cache")
        rows.extend(speed_rows(kv, codecs))
    return rows


def _quality_table(rows: list[QualityRow]) -> Table:
    table = Table(title="KV codecs: rate and distortion, side information counted")
    for name in ("codec", "origin", "tokens", "ratio", "bits/element", "KL", "same top-1"):
        table.add_column(name, justify="left" if name in ("codec", "origin") else "right")
    for row in rows:
        table.add_row(
            row.codec,
            row.origin,
            f"{row.context_tokens:,}",
            f"{row.ratio:.2f}",
            f"{row.bits_per_element:.2f}",
            f"{row.kl:.5f}",
            f"{row.top1_agreement:.3f}",
        )
    return table


def _speed_table(rows: list[SpeedRow]) -> Table:
    table = Table(title="Speed, GB/s of bf16 cache; coding pays on links below")
    columns = ("codec", "tokens", "threads", "ratio", "encode", "decode", "memory copy", "Gbit/s")
    for name in columns:
        table.add_column(name, justify="left" if name == "codec" else "right")
    for row in rows:
        table.add_row(
            row.codec,
            f"{row.context_tokens:,}",
            str(row.threads),
            f"{row.ratio:.2f}",
            f"{row.encode_gb_s:.2f}",
            f"{row.decode_gb_s:.2f}",
            f"{row.copy_gb_s:.2f}",
            f"{row.pays_below_gbit_s:.1f}",
        )
    return table


def _say(message: str) -> None:
    click.echo(message, err=True)


def _quiet(_stage: str, _fraction: float) -> None:
    """Loading takes a second or two; its stages are not worth lines."""

"""``scout bench codec``: KV codecs, rate against distortion and speed, beside their peers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console

from scout_core.cli.bench_codec_tables import (
    answer_table,
    crossover_table,
    quality_table,
    speed_table,
)
from scout_core.cli.eval_quality import chosen
from scout_core.codec.bases import basis_of
from scout_core.codec.registry import CODECS
from scout_core.codec.transform import TransformCodec
from scout_core.codec.transform_basis import TransformBasis
from scout_core.codec.transform_importance import grades_of
from scout_core.engine import Engine
from scout_core.engine.loading import load_model
from scout_core.engine.options import EngineOptions
from scout_core.engine.prompt import PromptTemplate
from scout_core.evaluation.codec_advantage import with_advantages
from scout_core.evaluation.codec_answers import AnswerRow, answer_rows
from scout_core.evaluation.codec_coded import Contender
from scout_core.evaluation.codec_contenders import GRADED, contenders
from scout_core.evaluation.codec_crossover import crossover_rows
from scout_core.evaluation.codec_plot import check_plots, draw
from scout_core.evaluation.codec_probe import CacheProbe, ProbeText
from scout_core.evaluation.codec_speed import SpeedRow, speed_rows
from scout_core.evaluation.codec_study import QualityRow, quality_rows, windows, with_answers
from scout_core.evaluation.codec_zstd import has_zstd
from scout_core.evaluation.dataset import load_examples

TAIL_TOKENS = 48
LONG_TOKENS = 1_000
LIMITS = 2
"""Of short contexts and of long ones."""
SPEED_POSITIONS = (256, 1024)
"""Cut to the text's length."""
DEMO_DOCUMENT = Path(__file__).with_name("demo_document.txt")


@click.command()
@click.option("--model", default="bundled:smollm2-135m-qa", show_default=True, help="Cloud model.")
@click.option(
    "--text",
    "texts",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=(DEMO_DOCUMENT,),
    multiple=True,
    show_default="the demo's document",
    help="Text whose windows are cached and continued; it should not be a calibration text. May "
    "be given several times.",
)
@click.option("--context-tokens", default="240", show_default=True, help="Lengths, with commas.")
@click.option(
    "--contexts",
    default="8,3",
    show_default=True,
    help="Windows of every length, of short ones and of those of 1,000 tokens and more.",
)
@click.option("--thorough", is_flag=True, help="All transform levels.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1), help="Of models.")
@click.option("--speed/--no-speed", default=True, help="Time the codecs too.")
@click.option("--f1-data", type=click.Path(path_type=Path), help="JSONL of questions: fills F1.")
@click.option("--f1-n", default=40, show_default=True, type=click.IntRange(1), help="Questions.")
@click.option(
    "--f1-codecs",
    default="int8_groups,int4_groups,transform_09,transform_12,transform_14",
    show_default=True,
    help="Whose answers are scored; names of the first table, with commas.",
)
@click.option("--plots", type=click.Path(file_okay=False, path_type=Path), help="Folder for PNGs.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
def command(**options: Any) -> None:
    """KV codecs: rate, distortion, speed, beside their peers.

    Contexts follow the chat template's head, as in a session. The default run takes one to four
    minutes of one core (the demo's document has two windows); longer contexts, --thorough and
    --f1-data (about a second for each question and codec) take more. Model passes run on --threads:
    on a core that other processes share, two threads wait for each other and are 20 times slower
    than one.

    transform_graded_XX: the positions of the context are graded by the attention that they get from
    its last 64 tokens; where answers are scored, from the question, as the edge grades them.

    Peers are our re-implementations from the papers. In the JSON document, a row of "quality" has
    times_ours (its bits over the best of ours at equal KL) if it is a peer, and f1_ratio null
    unless --f1-data was given and --f1-codecs names it; "answers" then has its n and interval.
    """
    lengths = _numbers(options["context_tokens"])
    limits = _numbers(options["contexts"])
    if len(limits) != LIMITS:
        raise click.BadParameter("--contexts: give two numbers, of short and of long contexts")
    if options["plots"] is not None:
        check_plots()
    torch.set_num_threads(options["threads"])
    loaded = load_model(EngineOptions(options["model"]), _quiet)
    basis = basis_of(loaded.fingerprint)
    compared = list(contenders(basis, thorough=options["thorough"]))
    _say_what_is_missing(basis)
    asked = [] if options["f1_data"] is None else _named(compared, options["f1_codecs"])
    prompt = PromptTemplate.from_tokenizer(loaded.tokenizer)
    documents = [prompt.context_tokens(path.read_text("utf-8")) for path in options["texts"]]
    probe = CacheProbe(loaded)
    quality: list[QualityRow] = []
    for length in lengths:
        texts = _cut(documents, length, limits[length >= LONG_TOKENS], prompt.head_tokens)
        quality.extend(quality_rows(probe, options["model"], texts, compared, _say))
    answers = _answers(options, asked) if asked else ()
    quality = list(with_advantages(with_answers(quality, answers)))
    speed = list(_speed(probe, documents[0], basis)) if options["speed"] else []
    if options["plots"] is not None:
        _say(f"wrote {draw(quality, options['plots']).name}")
    _print(quality, answers, speed, as_json=options["as_json"])


def _cut(
    documents: Sequence[Sequence[int]], length: int, limit: int, head: Sequence[int]
) -> list[ProbeText]:
    """At most ``limit`` windows, as many of each document as of the others if they are there.

    Raises:
        click.BadParameter: no document is so long.
    """
    cut = [windows(tokens, length, TAIL_TOKENS, limit, head) for tokens in documents]
    mixed = [text for row in zip_longest(*cut) for text in row if text is not None][:limit]
    if not mixed:
        raise click.BadParameter(f"no text has {length + TAIL_TOKENS} tokens")
    return mixed


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(length) for length in text.split(","))
    except ValueError as error:
        raise click.BadParameter("give whole numbers separated by commas") from error


def _say_what_is_missing(basis: TransformBasis | None) -> None:
    if basis is None:
        _say("No transform basis for this model: its rows and the KVTC-like peer are left out.")
    if not has_zstd():
        _say("The zstd peers are left out: install scout-kv[evaluation].")


def _named(compared: list[Contender], names: str) -> list[Contender]:
    """The contenders with these names.

    Raises:
        click.BadParameter: one is not compared.
    """
    by_name = {contender.name: contender for contender in compared}
    wanted = names.split(",")
    unknown = sorted(set(wanted) - by_name.keys())
    if unknown:
        raise click.BadParameter(
            f"--f1-codecs: not compared in this run: {', '.join(unknown)}; "
            f"there are {', '.join(by_name)}"
        )
    return [by_name[name] for name in wanted]


def _answers(options: dict[str, Any], asked: list[Contender]) -> tuple[AnswerRow, ...]:
    examples = chosen(load_examples(options["f1_data"]), options["f1_n"], seed=0)
    engine = Engine.load(EngineOptions(options["model"], threads=options["threads"]))
    rows = answer_rows(engine, examples, asked, _say)
    if not rows:
        _say("The model answers none of the questions even from the exact cache: no F1 ratios.")
    return rows


def _speed(
    probe: CacheProbe, tokens: Sequence[int], basis: TransformBasis | None
) -> Iterator[SpeedRow]:
    """Speeds on a short and on a longer cache of the text."""
    for positions in sorted({min(wanted, len(tokens)) for wanted in SPEED_POSITIONS}):
        prefix = tokens[:positions]
        kv, holder = probe.prefilled(prefix)
        _say(f"speed, on {kv.nbytes:,} bytes of cache")
        yield from speed_rows(kv, CODECS)
        if basis is None:
            continue
        level, grades = basis.int4_level, grades_of(probe.attention(holder, kv, prefix))
        yield from speed_rows(kv, [TransformCodec.at(basis, level, range(positions))])
        for row in speed_rows(kv, [TransformCodec.at(basis, level, range(positions), grades)]):
            yield replace(row, codec=GRADED)


def _print(
    quality: list[QualityRow],
    answers: tuple[AnswerRow, ...],
    speed: list[SpeedRow],
    *,
    as_json: bool,
) -> None:
    if as_json:
        rows = {
            "quality": [asdict(row) for row in quality],
            "answers": [asdict(row) for row in answers],
            "speed": [asdict(row) for row in speed],
            "crossover": [asdict(row) for row in crossover_rows(speed)],
        }
        click.echo(json.dumps(rows))
        return
    console = Console()
    console.print(quality_table(quality))
    if answers:
        console.print(answer_table(answers))
    if speed:
        console.print(speed_table(speed))
        console.print(crossover_table(list(crossover_rows(speed))))


def _say(message: str) -> None:
    click.echo(message, err=True)


def _quiet(_stage: str, _fraction: float) -> None:
    """Loading takes a second or two; its stages are not worth lines."""

"""``scout ask``: one question about one context, tokens as they are decoded."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from typing import Any, TextIO

import click

from scout_core.cli.answers import Answer, ask_once
from scout_core.errors import DeadlineError
from scout_core.modes import Execution, Mode
from scout_core.rpc.client import Ask, InferenceClient

DURATION = re.compile(r"^(\d+(?:\.\d+)?)(ms|s)?$")


def parse_duration(text: str) -> float:
    """Seconds from "2s", "500ms" or "2"."""
    match = DURATION.match(text.strip())
    if match is None:
        raise DeadlineError(f"{text!r} is not a duration; write 2s, 0.5s or 500ms.")
    return float(match[1]) / (1_000.0 if match[2] == "ms" else 1.0)


@click.command("ask")
@click.argument("question")
@click.option("--context", "context_file", type=click.File(encoding="utf-8"), required=True)
@click.option("--edge", default="127.0.0.1:7070", show_default=True, help="Daemon to ask.")
@click.option("--deadline", default=None, help="Time to the first token: 2s, 500ms.")
@click.option("--mode", type=click.Choice(["auto", *(mode.value for mode in Mode)]), default="auto")
@click.option("--retention", type=float, default=None, help="Fraction of the context to keep.")
@click.option("--execution", type=click.Choice([e.value for e in Execution]), default=None)
@click.option("--max-tokens", type=int, default=64, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead.")
def command(question: str, context_file: TextIO, as_json: bool, **flags: Any) -> None:
    """Ask QUESTION about the text in a file (- reads standard input)."""
    deadline, mode, execution = flags["deadline"], flags["mode"], flags["execution"]
    ask = Ask(
        question=question,
        context_text=context_file.read(),
        deadline_s=None if deadline is None else parse_duration(deadline),
        mode=None if mode == "auto" else Mode(mode),
        retention=flags["retention"],
        execution=None if execution is None else Execution(execution),
        max_tokens=flags["max_tokens"],
    )
    answer = asyncio.run(_ask(flags["edge"], ask, quiet=as_json))
    if as_json:
        click.echo(json.dumps(answer.facts(), ensure_ascii=False))
    else:
        click.echo()
        click.echo(accounting_line(answer), err=True)


async def _ask(address: str, ask: Ask, quiet: bool) -> Answer:
    def show(text: str) -> None:
        if not quiet:
            sys.stdout.write(text)
            sys.stdout.flush()

    async with InferenceClient(address) as client:
        return await ask_once(client, ask, show)


def accounting_line(answer: Answer) -> str:
    """Mode, bytes and times in one line for people."""
    counts, timing = answer.finished.bytes, answer.finished.timing
    met = "met" if answer.finished.deadline_met else "missed"
    codecs = f" ({answer.finished.kv_codecs})" if answer.finished.kv_codecs else ""
    line = (
        f"{answer.mode.value}{codecs} at retention {answer.started.retention:.2f}, "
        f"{counts.payload_bytes:,} payload bytes ({counts.uplink_bytes:,} up, "
        f"{counts.downlink_bytes:,} down, bf16 KV {counts.kv_bf16_bytes:,}), first token after "
        f"{timing.ttft_s:.2f} s (predicted {answer.started.predicted_ttft_s:.2f} s), deadline "
        f"{timing.deadline_s:g} s {met}"
    )
    return f"{line}; {answer.finished.degradation}" if answer.finished.degradation else line

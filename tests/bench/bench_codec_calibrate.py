"""Calibrates a transform basis from plain texts and questions over passages.

``python tests/bench/bench_codec_calibrate.py TEXT… --questions FILE… --output FILE``

Each TEXT is a plain text file, cut into windows of ``--short`` and ``--long`` tokens; every window
is a context and what follows it. Questions are JSON lines with ``context``, ``question`` and
``answers``; each context goes with its question and first answer. All begin with the chat
template's head, as in a session. ``--state`` and ``--seconds`` cut the work into slices: call it
again with the same arguments until it has written its output. The shipped basis was made by the
same fit and with the same numbers of texts: two old books, and questions over Wikipedia passages,
none of which the figures in ``codec/README.md`` are measured on.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from pathlib import Path

import torch

from scout_core.codec.transform import EXACT_SINKS
from scout_core.engine import Engine
from scout_core.engine.loading import load_model
from scout_core.engine.options import EngineOptions
from scout_core.evaluation.codec_asked import asked_contexts
from scout_core.evaluation.codec_calibration import collect, fitted, new_calibration
from scout_core.evaluation.codec_levels import with_graded_level, with_int4_level
from scout_core.evaluation.codec_probe import CacheProbe, ProbeText
from scout_core.evaluation.codec_study import windows
from scout_core.evaluation.dataset import load_examples

TAIL_TOKENS = 48
LONG_QUESTION_TOKENS = 1_500
FIT_S = 170.0
"""Of fitting and choosing the level, at most, on a slow core."""
LEVEL_SHORT_TEXTS = 10
LEVEL_LONG_TEXTS = 3
GRADED_SHORT_CONTEXTS = 40
GRADED_LONG_CONTEXTS = 8


def main() -> None:
    arguments = parsed()
    torch.set_num_threads(1)
    end_s = time.monotonic() + arguments.seconds
    engine = Engine.load(EngineOptions(arguments.model, threads=1))
    model = load_model(EngineOptions(arguments.model), lambda _stage, _fraction: None)
    texts = calibration_texts(engine, arguments)
    probe = CacheProbe(model)
    head = len(engine.prompt.head_tokens)
    calibration = new_calibration(probe, max(head, EXACT_SINKS))
    if arguments.state is not None and arguments.state.is_file():
        calibration.load(arguments.state)
    collect(calibration, probe, texts, progress, lambda: time.monotonic() > end_s)
    if arguments.state is not None:
        calibration.save(arguments.state)
    if calibration.done < len(texts) or end_s - time.monotonic() < FIT_S:
        print(f"{calibration.done} of {len(texts)} texts; call again to go on")
        return
    basis = fitted(calibration, probe)
    kinds = [
        [text for text in texts if (len(text.prefix) > LONG_QUESTION_TOKENS) is long][:count]
        for long, count in ((False, LEVEL_SHORT_TEXTS), (True, LEVEL_LONG_TEXTS))
    ]
    basis = with_int4_level(basis, probe, [kind for kind in kinds if kind], say)
    examples = [example for path in arguments.questions for example in load_examples(path)]
    asked = asked_contexts(engine, examples, short=GRADED_SHORT_CONTEXTS, long=GRADED_LONG_CONTEXTS)
    basis = with_graded_level(basis, probe, engine, asked, say)
    basis.save(arguments.output)
    size, levels = arguments.output.stat().st_size, (basis.int4_level, basis.graded_level)
    print(f"{arguments.output}: {size:,} bytes from {len(texts)} texts, levels {levels}")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("texts", nargs="*", type=Path)
    parser.add_argument("--questions", nargs="*", default=[], type=Path, help="JSONL files")
    parser.add_argument("--model", default="bundled:smollm2-135m-qa")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--short", type=int, default=230, help="tokens of a short window")
    parser.add_argument("--long", type=int, default=1900, help="tokens of a long window")
    parser.add_argument("--short-windows", type=int, default=12, help="per text")
    parser.add_argument("--long-windows", type=int, default=4, help="per text")
    parser.add_argument("--short-questions", type=int, default=48, help="per file")
    parser.add_argument("--long-questions", type=int, default=6, help="per file")
    parser.add_argument("--state", type=Path, help="where to keep what was collected")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="to stop after")
    return parser.parse_args()


def calibration_texts(engine: Engine, arguments: argparse.Namespace) -> list[ProbeText]:
    """All texts, mixed, so that a part of them is like the whole."""
    head = tuple(engine.prompt.head_tokens)
    texts: list[ProbeText] = []
    for path in arguments.texts:
        tokens = engine.prompt.context_tokens(path.read_text(encoding="utf-8"))
        for length, limit in (
            (arguments.short, arguments.short_windows),
            (arguments.long, arguments.long_windows),
        ):
            texts.extend(windows(tokens, length, TAIL_TOKENS, limit, head))
    source = random.Random(0)
    for path in arguments.questions:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        source.shuffle(rows)
        left = {False: arguments.short_questions, True: arguments.long_questions}
        for row in rows:
            text = question_text(engine, row, 2 * arguments.long)
            is_long = text is not None and len(text.prefix) > LONG_QUESTION_TOKENS
            if text is not None and left[is_long] > 0:
                left[is_long] -= 1
                texts.append(text)
    source.shuffle(texts)
    return texts


def question_text(engine: Engine, row: dict[str, object], limit: int) -> ProbeText | None:
    """A question over its context; None without an answer, or if the context is too long."""
    prompt = engine.prompt
    context = prompt.context_tokens(str(row["context"]))
    answers = row["answers"]
    if not isinstance(answers, list) or not answers or len(context) > limit:
        return None
    answer = prompt.context_tokens(str(answers[0]))
    tail = (*prompt.tail_tokens(str(row["question"])), *answer)
    return ProbeText((*prompt.head_tokens, *context), tail)


def progress(done: int, total: int) -> None:
    say(f"{done}/{total}")


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

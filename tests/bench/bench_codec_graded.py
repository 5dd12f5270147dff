"""What grading positions by the question saves, and which level it allows in 4-bit modes.

``python tests/bench/bench_codec_graded.py QUESTIONS… [--write ARTEFACT]``

QUESTIONS are JSONL files as ``scout eval quality`` reads them. Prints, for short and for long
contexts, the bytes and the KL divergence along gold answers of plain int4 groups, of the transform
at flat levels, and of the transform graded by the question, for that question and for another one
about the same context. ``--write`` saves a copy of the model's basis that advises senders of the
graded level by the calibration's rule: the coarsest that costs answers no more than int4 groups.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from itertools import chain
from pathlib import Path

import torch

from scout_core.codec.bases import basis_of
from scout_core.engine import Engine
from scout_core.engine.loading import load_model
from scout_core.engine.options import EngineOptions
from scout_core.errors import ProfileError
from scout_core.evaluation.codec_asked import asked_contexts, asked_rows, int4_way, transform_way
from scout_core.evaluation.codec_levels import described, with_graded_level
from scout_core.evaluation.codec_probe import CacheProbe
from scout_core.evaluation.dataset import load_examples


def main() -> None:
    arguments = parsed()
    torch.set_num_threads(arguments.threads)
    model = load_model(EngineOptions(arguments.model), lambda _stage, _fraction: None)
    engine = Engine.load(EngineOptions(arguments.model, threads=arguments.threads))
    probe = CacheProbe(model)
    basis = basis_of(model.fingerprint)
    if basis is None:
        raise ProfileError(f"No transform basis for {arguments.model}; calibrate one first.")
    examples = list(chain.from_iterable(load_examples(path) for path in arguments.questions))
    kinds = asked_contexts(engine, examples, short=arguments.short, long=arguments.long)
    if arguments.write is not None:
        advised = with_graded_level(basis, probe, engine, kinds, say)
        advised.save(arguments.write)
        say(f"{arguments.write.name}: graded level {advised.graded_level}")
        return
    ways = [int4_way()]
    ways += [transform_way(basis, level, graded=False) for level in arguments.flat]
    ways += [transform_way(basis, level, graded=True) for level in arguments.graded]
    for contexts in kinds:
        for row in asked_rows(probe, engine, contexts, ways, say):
            print(json.dumps(asdict(row)) if arguments.json else described(row))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("questions", nargs="+", type=Path, help="JSONL files")
    parser.add_argument("--model", default="bundled:smollm2-135m-qa")
    parser.add_argument("--short", type=int, default=40, help="contexts of 100 to 600 tokens")
    parser.add_argument("--long", type=int, default=8, help="contexts of 900 to 2,300 tokens")
    parser.add_argument("--flat", type=int, nargs="+", default=[9, 12, 16], help="levels")
    parser.add_argument("--graded", type=int, nargs="+", default=[12, 14, 16], help="levels")
    parser.add_argument("--threads", type=int, default=1, help="of the models")
    parser.add_argument("--write", type=Path, help="save the basis with its graded level here")
    parser.add_argument("--json", action="store_true", help="one JSON document a row")
    return parser.parse_args()


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

"""Calibrates a transform basis from plain texts.

``python tests/bench/bench_codec_calibrate.py TEXT… --output FILE``

Each TEXT is a plain text file, cut into windows of ``--short`` and ``--long`` tokens; every window
is a prefix and a continuation. The shipped basis was made by the same fit from questions over
passages and from book windows; the figures of ``scout bench codec`` are on other texts.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from scout_core.engine.loading import load_model
from scout_core.engine.options import EngineOptions
from scout_core.evaluation.codec_calibration import calibrate_basis
from scout_core.evaluation.codec_probe import CacheProbe, ProbeText
from scout_core.evaluation.codec_study import windows

TAIL_TOKENS = 48


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("texts", nargs="+", type=Path)
    parser.add_argument("--model", default="bundled:smollm2-135m")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--short", type=int, default=240, help="tokens of a short window")
    parser.add_argument("--long", type=int, default=1800, help="tokens of a long window")
    parser.add_argument("--windows", type=int, default=20, help="of each length, per text")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = load_model(EngineOptions(arguments.model), lambda _stage, _fraction: None)
    cut: list[ProbeText] = []
    for path in arguments.texts:
        text = path.read_text(encoding="utf-8")
        encoded = model.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
        for length in (arguments.short, arguments.long):
            cut.extend(windows(encoded.ids, length, TAIL_TOKENS, arguments.windows))
    basis = calibrate_basis(
        CacheProbe(model),
        cut,
        seed=0,
        on_progress=lambda done, total: print(f"{done}/{total}", file=sys.stderr),
    )
    basis.save(arguments.output)
    print(f"{arguments.output}: {arguments.output.stat().st_size:,} bytes from {len(cut)} windows")


if __name__ == "__main__":
    main()

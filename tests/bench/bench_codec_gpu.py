"""Speed and bit-equality of the GPU group codecs on one CUDA device.

``python tests/bench/bench_codec_gpu.py [--quick]``

Needs torch with CUDA, triton and numpy. Prints one JSON document and, if ``OUT`` names a folder,
writes it to ``$OUT/codec_gpu.json``. GB/s are of the bf16 cache. Times are medians of CUDA events
over a cache far larger than the second-level cache; ``copy`` is ``Tensor.copy_`` of the same cache.
A launch that fails to compile is reported under its name, and the others go on.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # run from a checkout, without installing the package

import numpy as np  # noqa: E402 - after the path
import torch  # noqa: E402 - after the path

from scout_core.codec import group_reference  # noqa: E402 - after the path
from scout_core.codec.gpu.launch import (  # noqa: E402 - after the path
    Launch,
    dequantise_on_device,
    quantise_on_device,
)
from scout_core.codec.group_layout import GroupLayout, GroupSections  # noqa: E402 - after the path
from scout_core.errors import CodecError  # noqa: E402 - after the path
from scout_core.geometry import KvGeometry  # noqa: E402 - after the path

LAUNCHES = {
    "native": Launch(rounds_natively=True),
    "narrow": Launch(32, 1, 4, 64, 1, 16, rounds_natively=True),
    "deep": Launch(64, 1, 4, 128, 4, 16, rounds_natively=True),
    "two-warps": Launch(64, 2, 8, 64, 2, 8, rounds_natively=True),
    "four-warps": Launch(64, 4, 8, 128, 2, 16, rounds_natively=True),
    "narrow-8": Launch(32, 1, 8, 32, 1, 16, rounds_natively=True),
    "portable": Launch(),
}
SHAPES = [
    (2, 2, 33, 64), (3, 2, 1, 128), (1, 3, 257, 128), (2, 1, 70, 192), (2, 2, 40, 96),
    (1, 2, 65, 80), (1, 1, 31, 256), (2, 1, 9, 16),
]  # fmt: skip
USUAL = (1, 8, 512, 128)
"""A shape that needs the same compiled kernels as the timed one."""
SCALES = [0.0, 1e-39, 1e-36, 2e-30, 1.0, 1e30, 3e37]
Timed = Callable[[], object]


def cache_bits(shape: tuple[int, int, int, int], scale: float) -> Any:
    """Normal numbers with a large first position, zeros of both signs and a constant channel."""
    layers, heads, positions, channels = shape
    source = np.random.default_rng(positions * channels)
    values = source.standard_normal((layers, 2, heads, positions, channels)) * scale
    values[..., :1, :] *= 1 if scale > 1e36 else 50
    values[..., 3] = scale
    bits = (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    bits[..., ::7, ::5] = 0x8000
    bits[..., ::9, 1::5] = 0
    return bits


def to_device(bits: Any) -> torch.Tensor:
    return torch.from_numpy(bits.view(np.int16).copy()).view(torch.bfloat16).cuda()


def mismatch(bits: Any, with_fine: bool, launch: Launch) -> str | None:
    """What differs from the reference for one cache, or None."""
    layers, _, heads, positions, channels = bits.shape
    layout = GroupLayout(KvGeometry(layers=layers, kv_heads=heads, head_dim=channels), positions)
    expected = np.zeros(layout.coarse_bytes + with_fine * layout.fine_bytes, dtype=np.uint8)
    sections = GroupSections.over(expected, layout)
    accepted = group_reference.quantise(bits, sections, layout.group_channels)
    cache = to_device(bits)
    try:
        payload = quantise_on_device(cache, with_fine=with_fine, launch=launch).checked()
    except CodecError:
        return "refused by the GPU only" if accepted else None
    if not accepted:
        return "refused by the reference only"
    wrong = int((payload.cpu().numpy() != expected).sum())
    if wrong:
        return f"{wrong} of {expected.size} payload bytes"
    decoded = np.empty_like(bits)
    group_reference.dequantise(sections, decoded)
    into = torch.zeros_like(cache)
    actual = dequantise_on_device(payload, into, launch=launch).checked()
    words = actual.cpu().view(torch.int16).numpy().view(np.uint16)
    wrong = int((words != decoded).sum())
    return f"{wrong} of {decoded.size} decoded elements" if wrong else None


def equality(launch: Launch, shapes: list[tuple[int, int, int, int]]) -> dict[str, object]:
    """Compares one launch with the reference over shapes, scales and refused input."""
    failures: list[str] = []
    cases = 0
    for shape in shapes:
        for scale in SCALES:
            for with_fine in (False, True):
                cases += 1
                wrong = mismatch(cache_bits(shape, scale), with_fine, launch)
                if wrong:
                    failures.append(f"{shape} x{scale} {'int8' if with_fine else 'int4'}: {wrong}")
    for word in () if shapes != [USUAL] else (0x7F80, 0xFF80, 0x7FC1, 0xFFC1, 0x7F7F, 0xFF7F):
        for part in (0, 1):
            bits = cache_bits(USUAL, 1.0)
            bits[0, part, 0, 35, 40] = word
            cases += 1
            wrong = mismatch(bits, False, launch)
            if wrong:
                failures.append(f"word {word:#x} in part {part}: {wrong}")
    return {"cases": cases, "failures": failures[:20], "failed": len(failures)}


def odd_shapes(until: float) -> dict[str, object]:
    """Equality for other head sizes and position counts, while time lasts (each compiles anew)."""
    found: dict[str, object] = {}
    for shape in SHAPES:
        if time.monotonic() > until:
            found[str(shape)] = "skipped: out of time"
            continue
        try:
            found[str(shape)] = equality(LAUNCHES["native"], [shape])
        except Exception as error:  # noqa: BLE001 - a shape that fails to compile is a finding
            found[str(shape)] = f"{type(error).__name__}: {error}"[:400]
        print(shape, found[str(shape)], file=sys.stderr, flush=True)
    return found


def median_s(work: Timed, repeats: int = 50) -> float:
    """Median seconds of one run on the device, each between two events."""
    for _ in range(5):
        work()
    pairs = [
        (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
        for _ in range(repeats)
    ]
    for start, stop in pairs:
        start.record()
        work()
        stop.record()
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(stop) for start, stop in pairs) / 1e3


def speeds(cache: torch.Tensor, launch: Launch) -> dict[str, float]:
    """GB/s of bf16 for both directions of both formats."""
    found: dict[str, float] = {}
    into = torch.empty_like(cache)
    for label, with_fine in (("int4", False), ("int8", True)):
        payload = quantise_on_device(cache, with_fine=with_fine, launch=launch).checked()

        def encode(with_fine: bool = with_fine) -> object:
            return quantise_on_device(cache, with_fine=with_fine, launch=launch)

        def decode(payload: torch.Tensor = payload) -> object:
            return dequantise_on_device(payload, into, launch=launch)

        found[f"{label}_encode_gb_s"] = round(cache.nbytes / median_s(encode) / 1e9, 1)
        found[f"{label}_decode_gb_s"] = round(cache.nbytes / median_s(decode) / 1e9, 1)
    return found


def eager_encode(kv: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """int4 in torch operations: same groups, ordinary arithmetic (a peer for speed, not bytes).

    Positions must be a multiple of 32.
    """
    layers, _, heads, positions, channels = kv.shape
    keys = kv[:, 0].float().reshape(layers, heads, positions // 32, 32, channels)
    values = kv[:, 1].float().reshape(layers, heads, positions, channels // 32, 32)
    parts: list[torch.Tensor] = []
    for part, axis in ((keys, 3), (values, 4)):
        offset = part.amin(axis, keepdim=True)
        step = ((part.amax(axis, keepdim=True) - offset) / 15).to(torch.bfloat16)
        scale = torch.where(step > 0, 16 / step.float(), torch.zeros_like(offset))
        codes = ((part - offset) * scale).round().clamp(max=247).to(torch.uint8)
        coarse = ((codes + 8) >> 4).reshape(layers, heads, positions, channels)
        half = channels // 2
        packed = coarse[..., :half] | (coarse[..., half:] << 4)
        parts += [offset.to(torch.bfloat16), step, packed]
    return tuple(parts)


def eager_decode(parts: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """The inverse of ``eager_encode``."""
    decoded: list[torch.Tensor] = []
    for offset, step, packed in (parts[:3], parts[3:]):
        codes = torch.cat((packed & 15, packed >> 4), dim=-1)
        layers, heads, positions, channels = codes.shape
        if offset.shape[3] == 1:
            codes = codes.reshape(layers, heads, positions // 32, 32, channels)
        else:
            codes = codes.reshape(layers, heads, positions, channels // 32, 32)
        level = (offset.float() + codes.float() * step.float()).to(torch.bfloat16)
        decoded.append(level.reshape(layers, heads, positions, channels))
    return torch.stack(decoded, dim=1)


def peers(cache: torch.Tensor, compiles: bool) -> dict[str, object]:
    """Copy, eager torch and torch.compile, in GB/s of bf16."""
    into = torch.empty_like(cache)
    found: dict[str, object] = {}
    found["copy_gb_s"] = round(cache.nbytes / median_s(lambda: into.copy_(cache)) / 1e9, 1)
    # a quarter of the layers, because eager torch holds several float32 copies
    part = cache[: max(1, cache.shape[0] // 4)]
    for label in ("eager", "compiled") if compiles else ("eager",):
        try:
            encode = torch.compile(eager_encode) if label == "compiled" else eager_encode
            decode = torch.compile(eager_decode) if label == "compiled" else eager_decode
            parts = encode(part)
            seconds = median_s(lambda encode=encode: encode(part), repeats=10)
            found[f"{label}_encode_gb_s"] = round(part.nbytes / seconds / 1e9, 1)
            seconds = median_s(lambda decode=decode, parts=parts: decode(parts), repeats=10)
            found[f"{label}_decode_gb_s"] = round(part.nbytes / seconds / 1e9, 1)
        except Exception as error:  # noqa: BLE001 - a peer that fails to compile is a finding
            found[f"{label}_error"] = f"{type(error).__name__}: {error}"[:400]
    return found


def is_equal(row: dict[str, Any]) -> bool:
    """Whether a launch was compared with the reference and nothing differed."""
    return "equality" in row and not row["equality"]["failed"]


def measure(quick: bool, budget_s: float) -> dict[str, object]:
    """The whole document."""
    until = time.monotonic() + 0.6 * budget_s
    layers, positions = (8, 2048) if quick else (48, 4096)  # the 14B shape of DESIGN §2, 805 MB
    torch.manual_seed(0)
    shape = (layers, 2, 8, positions, 128)
    cache = torch.randn(shape, device="cuda", dtype=torch.bfloat16)
    short = cache[:, :, :, :170].contiguous()
    results: dict[str, dict[str, Any]] = {}
    for label, launch in LAUNCHES.items():
        began = time.monotonic()
        if began > until:
            results[label] = {"skipped": "out of time"}
            continue
        try:
            row: dict[str, Any] = {"launch": asdict(launch)}
            row.update(speeds(cache, launch))
            row["equality"] = equality(launch, [USUAL])
        except Exception as error:  # noqa: BLE001 - a launch that fails to compile is a finding
            row = {"launch": asdict(launch), "error": f"{type(error).__name__}: {error}"[:600]}
        row["took_s"] = round(time.monotonic() - began, 1)
        results[label] = row
        print(label, row, file=sys.stderr, flush=True)
    figures = [f"{width}_{way}_gb_s" for width in ("int4", "int8") for way in ("encode", "decode")]
    equal = {label: row for label, row in results.items() if is_equal(row)}
    best: dict[str, object] = {
        figure: max(((row[figure], label) for label, row in equal.items()), default=None)
        for figure in figures
    }
    return {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "triton": import_module("triton").__version__,
        "shape": shape,
        "cache_bytes": cache.nbytes,
        "best": best,
        "peers": peers(cache, compiles=not quick),
        "odd_shapes": odd_shapes(until + 0.3 * budget_s),
        "short_170_positions": speeds(short, LAUNCHES["native"]),
        "launches": results,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small cache, no torch.compile")
    parser.add_argument("--budget-s", type=float, default=85, help="drop later launches, cases")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("no CUDA device; the unit tests run the kernels in Triton's interpreter")
    document = json.dumps(measure(arguments.quick, arguments.budget_s))
    print(document)
    folder = os.environ.get("OUT")
    if folder:
        (Path(folder) / "codec_gpu.json").write_text(document, encoding="utf-8")


if __name__ == "__main__":
    main()

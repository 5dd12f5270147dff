"""Which device and numeric type this host should compute in. Decides by what the hardware has."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import torch

from scout_core.engine.options import ComputeDtype, Device
from scout_core.errors import SettingsError

CPU_FACTS: Final = Path("/proc/cpuinfo")
X86_BF16_MATRIX: Final = frozenset({"amx_bf16"})
ARM_BF16_MATRIX: Final = frozenset({"bf16"})
"""BFMMLA. x86's avx512_bf16 does not count: it is no matrix unit, and its measurements disagree (on
one Zen 4 thread prefill 1.5x faster and decoding up to 1.2x slower; DESIGN §2: twice as slow)."""


def choose_device(wanted: Device) -> torch.device:
    """The device to load on.

    Raises:
        SettingsError: a GPU was asked for by name and there is none.
    """
    present = torch.cuda.is_available()
    if wanted == "cuda" and not present:
        raise SettingsError("The model is set to device 'cuda' but torch sees no GPU; use 'auto'.")
    return torch.device("cuda" if present and wanted != "cpu" else "cpu")


def choose_dtype(wanted: ComputeDtype, device: torch.device) -> torch.dtype:
    """The numeric type: bfloat16 where the hardware multiplies matrices in it, else float32."""
    match wanted:
        case "float32":
            return torch.float32
        case "bfloat16":
            return torch.bfloat16
        case "auto":
            if device.type == "cuda":
                fast = torch.cuda.is_bf16_supported(including_emulation=False)
            else:
                fast = has_bf16_matrix_unit(platform.machine(), cpu_features())
            return torch.bfloat16 if fast else torch.float32


def has_bf16_matrix_unit(machine: str, features: Iterable[str]) -> bool:
    """Whether a CPU of this architecture with these feature flags has bfloat16 matrix units."""
    needed = ARM_BF16_MATRIX if machine in {"aarch64", "arm64"} else X86_BF16_MATRIX
    return needed <= set(features)


def cpu_features() -> frozenset[str]:
    """Feature flags of the first CPU, as Linux lists them; empty on other systems."""
    if not CPU_FACTS.is_file():
        return frozenset()
    for line in CPU_FACTS.read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in {"flags", "Features"}:
            return frozenset(value.split())
    return frozenset()

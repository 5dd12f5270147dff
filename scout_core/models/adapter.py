"""Low-rank adapters (LoRA): read one file, add it to weights. Knows names and shapes, no models.

File: safetensors with ``<module>.lora_A`` ``[rank, in]`` and ``<module>.lora_B`` ``[out, rank]``
per adapted linear layer, metadata ``rank`` and ``alpha``; the weight becomes
``W + alpha / rank * B @ A`` (Hu et al. 2021, https://arxiv.org/abs/2106.09685, section 4.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from scout_core.errors import ProfileError

DOWN_SUFFIX = ".lora_A"
UP_SUFFIX = ".lora_B"


@dataclass(frozen=True, slots=True)
class Adapter:
    """Pairs of factors by linear layer, e.g. ``model.layers.3.self_attn.q_proj``."""

    factors: Mapping[str, tuple[torch.Tensor, torch.Tensor]]
    scale: float


def read_adapter(path: Path) -> Adapter:
    """Reads an adapter file.

    Raises:
        ProfileError: not safetensors, metadata missing, or factors that do not form pairs.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError) as error:
        raise ProfileError(f"Adapter {path.name} is not a safetensors file: {error}.") from error
    try:
        scale = float(facts["alpha"]) / int(facts["rank"])
    except (KeyError, ValueError, ZeroDivisionError) as error:
        raise ProfileError(f"Adapter {path.name} needs the metadata rank and alpha.") from error
    names = {name.removesuffix(DOWN_SUFFIX).removesuffix(UP_SUFFIX) for name in tensors}
    if set(tensors) != {name + suffix for name in names for suffix in (DOWN_SUFFIX, UP_SUFFIX)}:
        raise ProfileError(f"Adapter {path.name} must hold lora_A and lora_B of each layer.")
    factors = {name: (tensors[name + DOWN_SUFFIX], tensors[name + UP_SUFFIX]) for name in names}
    return Adapter(factors, scale)


def merge_adapter(adapter: Adapter, weights: Mapping[str, torch.Tensor]) -> None:
    """Adds the adapter to the weights in place, in float32 and rounded once.

    Args:
        weights: by parameter name (``<module>.weight``). A layer that is not there is left out
            when the model was cut to its first layers.

    Raises:
        ProfileError: no layer matches, or a shape does not fit: the adapter is another model's.
    """
    merged = 0
    for name, (down, up) in adapter.factors.items():
        weight = weights.get(f"{name}.weight")
        if weight is None:
            continue
        if (up.shape[0], down.shape[1]) != tuple(weight.shape):
            raise ProfileError(f"The adapter's shape does not fit {name}; it is another model's.")
        change = adapter.scale * (up.float() @ down.float())
        with torch.no_grad():
            weight.copy_(weight.float() + change.to(weight.device))
        merged += 1
    if merged == 0:
        raise ProfileError("The adapter names no layer of this model; it is another model's.")

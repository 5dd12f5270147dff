"""Low-rank adapters over stacked decoder weights, merged anew at every step.

Owns: making, merging, averaging, saving and loading ``lora_A`` / ``lora_B`` pairs. A merged
forward pass is what the engine runs after loading, so training sees the same function. Knows
nothing of data or losses.

File format (read by ``scout_core.models``): safetensors with ``model.layers.I.PART.lora_A``
``[rank, in]`` and ``model.layers.I.PART.lora_B`` ``[out, rank]`` in float16, metadata ``rank`` and
``alpha`` (the update is ``alpha / rank · B @ A``) and whatever the caller adds.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from scout_core.evaluation.quality_decoder import NORMS, PROJECTIONS, DecoderWeights

ModelT = TypeVar("ModelT")


@dataclass(slots=True)
class Base:
    """Frozen base weights: stacks over layers in float32, embedding and output in compute type."""

    stacks: dict[str, Tensor]
    embedding: Tensor
    final_norm: Tensor
    compute_dtype: torch.dtype


@dataclass(slots=True)
class LowRank:
    """``down[name]`` is A ``[layers, rank, in]``, ``up[name]`` is B ``[layers, out, rank]``."""

    down: dict[str, Tensor]
    up: dict[str, Tensor]
    rank: int
    alpha: float

    def parameters(self) -> list[Tensor]:
        return [*self.down.values(), *self.up.values()]

    def first(self, layers: int) -> LowRank:
        """A trainable copy of the first ``layers`` layers."""
        return LowRank(
            {k: v[:layers].detach().clone().requires_grad_() for k, v in self.down.items()},
            {k: v[:layers].detach().clone().requires_grad_() for k, v in self.up.items()},
            self.rank,
            self.alpha,
        )

    def detached(self) -> LowRank:
        return LowRank(
            {k: v.detach().clone() for k, v in self.down.items()},
            {k: v.detach().clone() for k, v in self.up.items()},
            self.rank,
            self.alpha,
        )


def fresh(base: Base, *, layers: int, rank: int, alpha: float, seed: int) -> LowRank:
    """A new adapter: A uniform as in Hu et al. 2021 (Kaiming), B zero, so it changes nothing."""
    generator = torch.Generator().manual_seed(seed)
    down: dict[str, Tensor] = {}
    up: dict[str, Tensor] = {}
    for name in PROJECTIONS:
        _, out, width = base.stacks[name].shape
        bound = (1.0 / width) ** 0.5
        noise = torch.rand((layers, rank, width), generator=generator) * 2 * bound - bound
        device = base.embedding.device
        down[name] = noise.to(device).requires_grad_()
        up[name] = torch.zeros((layers, out, rank), device=device, requires_grad=True)
    return LowRank(down, up, rank, alpha)


@torch.no_grad()
def averaged(adapters: Sequence[LowRank]) -> LowRank:
    """The mean of the adapters' updates, at the rank of the first (the best such approximation)."""
    first = adapters[0]
    down: dict[str, Tensor] = {}
    up: dict[str, Tensor] = {}
    for name in PROJECTIONS:
        tall = torch.cat([a.up[name] * (a.alpha / a.rank) for a in adapters], dim=2).float()
        wide = torch.cat([a.down[name] for a in adapters], dim=1).float() / len(adapters)
        q_tall, r_tall = torch.linalg.qr(tall)
        q_wide, r_wide = torch.linalg.qr(wide.transpose(1, 2))
        u, scale, vh = torch.linalg.svd(r_tall @ r_wide.transpose(1, 2))
        root = scale[:, : first.rank].sqrt() * (first.rank / first.alpha) ** 0.5
        up[name] = (q_tall @ u[:, :, : first.rank]) * root[:, None, :]
        down[name] = root[:, :, None] * (vh[:, : first.rank] @ q_wide.transpose(1, 2))
    return LowRank(down, up, first.rank, first.alpha)


def merged(base: Base, adapter: LowRank | None, *, layers: int) -> DecoderWeights:
    """Weights of the first ``layers`` layers with the adapter added, in the compute type."""
    layer: dict[str, tuple[Tensor, ...]] = {}
    for name in PROJECTIONS:
        stack = base.stacks[name][:layers]
        if adapter is not None:
            scale = adapter.alpha / adapter.rank
            stack = torch.baddbmm(stack, adapter.up[name], adapter.down[name], alpha=scale)
        layer[name] = stack.to(base.compute_dtype).unbind(0)
    for name in NORMS:
        layer[name] = base.stacks[name][:layers].to(base.compute_dtype).unbind(0)
    embedding = base.embedding
    return DecoderWeights(layer, embedding, embedding, base.final_norm.to(base.compute_dtype))


def with_averages(
    named: Mapping[str, ModelT], average: Callable[[Sequence[ModelT]], ModelT]
) -> dict[str, ModelT]:
    """Every model and every average of two or more of them, which began alike."""
    found = dict(named)
    for size in range(2, len(named) + 1):
        for names in combinations(sorted(named), size):
            found["+".join(names)] = average([named[name] for name in names])
    return found


@dataclass(slots=True)
class Average:
    """Exponential moving average of an adapter, bias-corrected by a growing decay."""

    shadow: LowRank
    decay: float
    steps: int = 0

    def update(self, adapter: LowRank) -> None:
        self.steps += 1
        decay = min(self.decay, self.steps / (self.steps + 9))
        with torch.no_grad():
            pairs = zip(self.shadow.parameters(), adapter.parameters(), strict=True)
            for mean, now in pairs:
                mean.lerp_(now.detach(), 1 - decay)


def average_of(adapter: LowRank, decay: float) -> Average:
    return Average(copy.copy(adapter.detached()), decay)


def save_adapter(
    adapter: LowRank, path: Path, metadata: Mapping[str, str], extra: Mapping[str, Tensor]
) -> None:
    """Write the adapter in float16; ``extra`` tensors (a readout) keep their own names."""
    tensors: dict[str, Tensor] = {name: t.detach().cpu().contiguous() for name, t in extra.items()}
    for name in PROJECTIONS:
        for index in range(adapter.down[name].shape[0]):
            stem = f"model.layers.{index}.{name}"
            tensors[f"{stem}.lora_A"] = adapter.down[name][index].detach().half().cpu().contiguous()
            tensors[f"{stem}.lora_B"] = adapter.up[name][index].detach().half().cpu().contiguous()
    labels = {"rank": str(adapter.rank), "alpha": str(adapter.alpha), **metadata}
    save_file(tensors, str(path), metadata=labels)


def load_adapter(path: Path, device: torch.device) -> LowRank:
    """Read an adapter back as float32 stacks that carry gradients."""
    with safe_open(str(path), framework="pt") as file:
        labels = file.metadata()
        names = set(file.keys())
        layers = 1 + max(int(n.split(".")[2]) for n in names if n.endswith(".lora_A"))

        def stack(name: str, side: str) -> Tensor:
            parts = [file.get_tensor(f"model.layers.{i}.{name}.{side}") for i in range(layers)]
            return torch.stack(parts).float().to(device).requires_grad_()

        down = {name: stack(name, "lora_A") for name in PROJECTIONS}
        up = {name: stack(name, "lora_B") for name in PROJECTIONS}
    return LowRank(down, up, int(labels["rank"]), float(labels["alpha"]))

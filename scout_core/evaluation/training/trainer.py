"""One optimisation loop for every adapter.

Owns: AdamW, warm-up and cosine decay, gradient clipping, the moving average and a wall-clock
budget. Knows neither data nor losses: it is given a function that returns a loss per step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast to train."""

    steps: int
    learning_rate: float
    warmup_steps: int = 20
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    floor: float = 0.02
    budget_s: float = 1e9

    def progress(self, step: int, spent_s: float) -> float:
        """How far the run is after ``step`` steps and ``spent_s`` seconds; it ends at 1."""
        return max(step / self.steps, spent_s / self.budget_s)

    def rate(self, progress: float, step: int) -> float:
        """Learning rate at ``progress`` in [0, 1] of the run."""
        ramp = min(1.0, (step + 1) / max(self.warmup_steps, 1))
        cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
        return self.learning_rate * ramp * (self.floor + (1 - self.floor) * cosine)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run did."""

    steps: int
    seconds: float
    losses: tuple[float, ...]
    """Mean loss of every tenth of the run."""


def optimise(
    parameters: list[Tensor],
    loss_at: Callable[[int], Tensor],
    schedule: Schedule,
    after_step: Callable[[], None] | None = None,
) -> Outcome:
    """Minimise ``loss_at(step)``; ends after ``steps`` or ``budget_s``, decayed either way."""
    fused = parameters[0].is_cuda
    optimiser = torch.optim.AdamW(
        parameters,
        lr=schedule.learning_rate,
        betas=(0.9, 0.98),
        weight_decay=schedule.weight_decay,
        fused=fused,
    )
    began = time.perf_counter()
    recorded: list[Tensor] = []
    step = 0
    while (progress := schedule.progress(step, time.perf_counter() - began)) < 1.0:
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate(progress, step)
        loss = loss_at(step)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, schedule.clip_norm)
        optimiser.step()
        if after_step is not None:
            after_step()
        recorded.append(loss.detach())
        step += 1
    values = torch.stack(recorded).float().cpu()
    tenths = tuple(round(float(part.mean()), 4) for part in values.chunk(10))
    return Outcome(step, time.perf_counter() - began, tenths)

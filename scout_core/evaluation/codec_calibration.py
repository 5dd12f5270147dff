"""Runs a model over texts and collects what a transform basis is fitted from.

Owns the passes: one without gradients for the cache, then for each sampled continuation one
forward and backward pass of the tail alone, with the cache as the leaf. What was collected can be
kept in a file and gone on with: the passes take minutes. Knows no texts.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from scout_core.codec.rotary import Rotation
from scout_core.codec.transform_basis import TransformBasis
from scout_core.evaluation.codec_fit import fit_basis
from scout_core.evaluation.codec_probe import CacheProbe, ProbeText
from scout_core.evaluation.codec_statistics import CacheStatistics, grouped_rows

LARGEST_GROUP: Final = 5
"""Layers in a group at most: so the basis of the bundled model stays below 16 MB (11 MB)."""
SAMPLED_CONTINUATIONS: Final = 2
COUNTED_TEXTS: Final = 16
"""Texts whose rows train the entropy models (kept in memory in the meantime)."""
COUNTED_POSITIONS: Final = 300
"""Of each of them at most: counting is slow, and long texts must not outweigh the others."""
SUMS: Final = ("products", "sums", "importance", "sinks")

OnProgress = Callable[[int, int], None]
IsTimeUp = Callable[[], bool]


@dataclass(slots=True)
class Calibration:
    """What was collected from the first ``done`` texts."""

    statistics: CacheStatistics
    samples: list[torch.Tensor] = field(default_factory=list[torch.Tensor])
    """Rows of the counted texts, ``[2, groups, positions, width]``."""
    done: int = 0

    def save(self, path: Path) -> None:
        """Keeps it for ``load``."""
        tensors = {name: getattr(self.statistics, name) for name in SUMS}
        tensors |= {f"sample {index:03}": sample for index, sample in enumerate(self.samples)}
        seen = (self.done, self.statistics.rows_seen, self.statistics.texts_seen)
        save_file(tensors, path, {"seen": " ".join(str(number) for number in seen)})

    def load(self, path: Path) -> None:
        """Goes on from what ``save`` kept; the texts must be the same."""
        with safe_open(path, framework="pt") as file:
            for name in SUMS:
                setattr(self.statistics, name, file.get_tensor(name))
            names = sorted(name for name in file.keys() if name.startswith("sample"))  # noqa: SIM118 - no mapping, only keys()
            self.samples = [file.get_tensor(name) for name in names]
            seen = [int(number) for number in (file.metadata() or {})["seen"].split()]
        self.done, self.statistics.rows_seen, self.statistics.texts_seen = seen


def new_calibration(probe: CacheProbe, fixed_positions: int) -> Calibration:
    """Nothing collected yet.

    Args:
        fixed_positions: how many first tokens all texts have in common.
    """
    geometry = probe.geometry
    size = max(size for size in range(1, LARGEST_GROUP + 1) if geometry.layers % size == 0)
    groups = geometry.layers // size
    return Calibration(CacheStatistics(geometry, groups, fixed_positions))


def collect(
    calibration: Calibration,
    probe: CacheProbe,
    texts: Sequence[ProbeText],
    on_progress: OnProgress,
    is_time_up: IsTimeUp = lambda: False,
) -> None:
    """Takes in the texts that are left, or those before the time is up.

    Every text weighs the same in the importance, however long it is. Sampled continuations are
    drawn from torch's global generator, seeded by the text's number.
    """
    statistics = calibration.statistics
    source = random.Random(0)  # noqa: S311 - a reproducible choice, no secret
    counted = set(source.sample(range(len(texts)), min(COUNTED_TEXTS, len(texts))))
    while calibration.done < len(texts) and not is_time_up():
        index = calibration.done
        text = texts[index]
        torch.manual_seed(index)
        rotation = Rotation.at(torch.arange(len(text.prefix)), probe.geometry.head_dim, probe.theta)
        kv, holder = probe.prefilled(text.prefix)
        rows = grouped_rows(kv, statistics.groups, rotation)
        statistics.add_rows(rows)
        if index in counted:
            calibration.samples.append(rows[:, :, :COUNTED_POSITIONS].contiguous())
        for gradient in _gradients(probe, holder, kv, text.tail):
            gradients = grouped_rows(gradient, statistics.groups, rotation)
            weight = 1 / (SAMPLED_CONTINUATIONS * len(texts) * len(text.tail))
            statistics.add_gradients(gradients, weight)
        calibration.done += 1
        on_progress(calibration.done, len(texts))


def fitted(calibration: Calibration, probe: CacheProbe) -> TransformBasis:
    """The basis of what was collected."""
    return fit_basis(probe.fingerprint, calibration.statistics, probe.theta, calibration.samples)


def _gradients(
    probe: CacheProbe, holder: Any, kv: torch.Tensor, tail: Sequence[int]
) -> Iterator[torch.Tensor]:
    """Gradients in the shape of ``kv``, one per continuation sampled from the model."""
    for _ in range(SAMPLED_CONTINUATIONS):
        leaf = kv.float().requires_grad_()
        likelihoods = probe.log_likelihoods(holder, leaf, tail)
        drawn = torch.multinomial(likelihoods.detach().exp(), 1)
        (gradient,) = torch.autograd.grad(likelihoods.gather(1, drawn).sum(), leaf)
        yield gradient

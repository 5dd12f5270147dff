"""From statistics to a transform basis: whitening by importance, principal components, 8 bits.

Owns the fit; knows no model. With C the covariance of rows and M = L Lᵀ the importance (Fisher
information), the coefficients are the principal components of Lᵀ row: uncorrelated, and an error
of one costs the same in each. The basis is rounded to 8 bits per entry, and everything after that
(forward transform, deviations, entropy models) is computed from the rounded one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from scout_core.codec.rans import normalised
from scout_core.codec.transform_basis import (
    ALPHABET,
    CLASSES,
    CLASSES_PER_OCTAVE,
    LOWEST_CLASS_OCTAVE,
    TransformBasis,
    classes_of,
)
from scout_core.codec.transform_kernels import ESCAPE, ROUNDING, ZERO
from scout_core.codec.transform_plan import LEVELS_PER_OCTAVE
from scout_core.evaluation.codec_statistics import CacheStatistics
from scout_core.modes import ModelFingerprint

RIDGE: Final = 0.02
"""Share of each head's mean importance mixed into M: keeps it invertible and forgives sampling."""
FINEST_STEP_DEVIATIONS: Final = 0.015
"""Step of level 0, in root mean square deviations of the coefficients."""
USUAL_INT4_LEVEL: Final = 12
"""Until ``codec_levels`` has measured it."""
PRIOR_SYMBOLS: Final = 300
"""Weight of the Laplace prior against counted symbols, in each entropy model."""
COUNTED_LEVELS: Final = (4, 10, 14, 18, 22)
SMALLEST_SHARE: Final = 1e-9


def fit_basis(
    fingerprint: ModelFingerprint,
    statistics: CacheStatistics,
    theta: float,
    samples: Iterable[torch.Tensor],
) -> TransformBasis:
    """Fits a basis; ``samples`` are rows ``[2, groups, positions, width]`` of some of the texts.

    The samples train the entropy models and the reconstruction points.
    """
    groups, head_dim = statistics.groups, statistics.geometry.head_dim
    parts = [
        _fit_group(statistics, kind, group, head_dim)
        for kind in range(2)
        for group in range(groups)
    ]
    integers, scales, means, deviations = (
        torch.stack(column).reshape(2, groups, *column[0].shape)
        for column in zip(*parts, strict=True)
    )
    prior = _laplace_shares()
    untrained = TransformBasis(
        fingerprint=fingerprint,
        geometry=statistics.geometry,
        theta=theta,
        finest_step=float(deviations.square().mean().sqrt()) * FINEST_STEP_DEVIATIONS,
        int4_level=USUAL_INT4_LEVEL,
        graded_level=USUAL_INT4_LEVEL,
        integers=integers,
        scales=scales,
        means=means,
        deviations=deviations,
        sinks=(statistics.sinks / statistics.texts_seen).to(torch.bfloat16).float(),
        frequencies=np.stack([_frequencies(row) for row in prior]),
        shrinkage=torch.zeros(CLASSES),
    )
    counts, shrinkage = _count_symbols(untrained, samples)
    counted = counts + PRIOR_SYMBOLS * prior
    frequencies = np.stack([_frequencies(row) for row in counted])
    return replace(untrained, frequencies=frequencies, shrinkage=shrinkage)


def _fit_group(
    statistics: CacheStatistics, kind: int, group: int, head_dim: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Integers, scales, mean and deviations of one group."""
    mean = statistics.sums[kind, group] / statistics.rows_seen
    products = statistics.products[kind, group] / statistics.rows_seen
    covariance = (products - torch.outer(mean, mean)).double()
    importance = statistics.importance[kind, group].double()
    level = importance.diagonal().reshape(-1, head_dim).mean(dim=1).repeat_interleave(head_dim)
    importance = (1 - RIDGE) * importance + RIDGE * torch.diag(level)
    root = torch.linalg.cholesky(importance)
    _, components = torch.linalg.eigh(root.T @ covariance @ root)
    inverse = torch.linalg.solve_triangular(root.T, components, upper=True)
    scales = inverse.abs().amax(dim=0) / 127
    integers = (inverse / scales).round()
    forward = torch.linalg.inv(integers * scales)
    variances = (forward @ covariance @ forward.T).diagonal().clamp_min(1e-30)
    order = torch.argsort(variances, descending=True)
    return (
        integers[:, order].to(torch.int8),
        scales[order].float(),
        mean,
        variances[order].sqrt().float(),
    )


def _laplace_shares() -> NDArray[np.float64]:
    """Share of each symbol in each class if coefficients were Laplace, ``[CLASSES, ALPHABET]``."""
    octaves = (np.arange(CLASSES) + 0.5) / CLASSES_PER_OCTAVE + LOWEST_CLASS_OCTAVE
    decay = (2.0**octaves / np.sqrt(2))[:, None]
    magnitudes = np.abs(np.arange(-ZERO, ZERO + 1))[None]
    lower = np.exp(-(magnitudes - ROUNDING) / decay) / 2
    upper = np.exp(-(magnitudes + 1 - ROUNDING) / decay) / 2
    shares = np.where(magnitudes == 0, 1 - 2 * upper, lower - upper)
    escapes = np.exp(-(ZERO + 1 - ROUNDING) / decay)
    return np.maximum(np.concatenate((shares, escapes), axis=1), SMALLEST_SHARE)


def _frequencies(weights: NDArray[np.float64]) -> NDArray[np.uint16]:
    """A model's frequencies: symmetric in sign, every symbol possible."""
    symmetric = weights.copy()
    symmetric[:ESCAPE] = (weights[:ESCAPE] + weights[:ESCAPE][::-1]) / 2
    scaled = symmetric / symmetric.sum() * 1e9
    return normalised(np.maximum(scaled, 1).astype(np.int64))


def _count_symbols(
    basis: TransformBasis, samples: Iterable[torch.Tensor]
) -> tuple[NDArray[np.float64], torch.Tensor]:
    """Symbols per class over several levels, and where values quantised to ±1 lie on average."""
    counts = np.zeros((CLASSES, ALPHABET))
    beyond, ones = np.zeros(CLASSES), np.zeros(CLASSES)
    for rows in samples:
        rest = rows[:, :, basis.sinks.shape[1] :] - basis.means[:, :, None]
        coefficients = rest @ basis.forward.transpose(2, 3)
        for level in COUNTED_LEVELS:
            step = basis.finest_step * 2.0 ** (level / LEVELS_PER_OCTAVE)
            classes = classes_of(basis.deviations, step)[:, :, None].expand_as(coefficients)
            values = (coefficients / step).numpy()
            kept = classes.numpy() >= 0
            values, labels = values[kept], classes.numpy()[kept]
            magnitudes = np.floor(np.abs(values) + ROUNDING)
            signed = np.where(magnitudes > ZERO, ESCAPE - ZERO, magnitudes * np.sign(values))
            np.add.at(counts, (labels, signed.astype(np.int64) + ZERO), 1)
            one = magnitudes == 1
            np.add.at(beyond, labels[one], np.abs(values[one]) - 1)
            np.add.at(ones, labels[one], 1)
    shrinkage = np.where(ones > 0, beyond / np.maximum(ones, 1), 0)
    return counts, torch.from_numpy(shrinkage).float()

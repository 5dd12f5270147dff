"""Scores per context position from the question's attention (paper §III: Q2C attention).

Plain mean attention chooses no better than chance on the bundled model; a calibrated linear model
over standardised log-attention does (measured, DESIGN §2). Both are here, under honest names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch.nn.functional import avg_pool1d, max_pool1d

from scout_core.errors import ProfileError
from scout_core.selection.head_weights import HeadWeights, PoolKind
from scout_core.selection.lexical import features

UNCALIBRATED: Final = "uncalibrated_mean"
"""Name under which responses report scores that no profile stands behind."""
MIN_ATTENTION: Final = 1e-9
"""Floor before the logarithm; attention below it is rounding noise in float32."""
MIN_DEVIATION: Final = 1e-6


def head_features(attention: torch.Tensor) -> torch.Tensor:
    """Log-attention, standardised per head over the positions.

    Args:
        attention: ``[layers, heads, positions]``, non-negative; NaN where a head cannot see.

    Returns:
        float32 of the same shape: mean 0 and deviation 1 along the positions that the head sees;
        0 where it does not distinguish them, or does not see.
    """
    logged = attention.float().clamp_min(MIN_ATTENTION).log()
    centred = logged - logged.nanmean(dim=-1, keepdim=True)
    deviation = centred.square().nanmean(dim=-1, keepdim=True).sqrt()
    told = (deviation > MIN_DEVIATION) & ~centred.isnan()
    return torch.where(told, centred / deviation.clamp_min(MIN_DEVIATION), 0.0)


def calibrated_scores(attention: torch.Tensor, weights: HeadWeights) -> torch.Tensor:
    """Scores by calibrated heads.

    Args:
        attention: ``[layers, heads, positions]`` over the context's positions alone.

    Returns:
        float32 ``[positions]``; higher matters more.

    Raises:
        ProfileError: the weights were calibrated for another number of layers or heads.
    """
    if tuple(attention.shape[:2]) != (weights.layers, weights.heads):
        raise ProfileError(
            f"Head weights are for {weights.layers}x{weights.heads} heads, the model has "
            f"{attention.shape[0]}x{attention.shape[1]}; calibrate this model.",
        )
    features = head_features(attention)
    scores = torch.einsum("lhp,lh->p", features, weights.weights.to(features.device))
    return pooled(scores + weights.bias, weights.pool_width, weights.pool_kind)


def scores_with_words(
    attention: torch.Tensor, weights: HeadWeights, pieces: Sequence[str], question: str
) -> torch.Tensor:
    """``calibrated_scores``, and word overlap where the weights have it: float32 ``[positions]``.

    Args:
        pieces: the text of every token.

    Raises:
        ProfileError: as ``calibrated_scores``.
    """
    scores = calibrated_scores(attention, weights)
    if weights.lexical is None:
        return scores
    return scores.cpu() + weights.lexical @ lexical_rows(pieces, question)


def lexical_rows(pieces: Sequence[str], question: str) -> torch.Tensor:
    """Word overlap of a question with a context: float32 ``[columns, positions]``.

    Each column of ``lexical.FEATURES`` with mean 0 and deviation 1 along positions, as
    ``head_features``.

    Args:
        pieces: the text of every token.
    """
    table = torch.from_numpy(features(pieces, question)).T.float()
    centred = table - table.mean(dim=-1, keepdim=True)
    deviation = centred.square().mean(dim=-1, keepdim=True).sqrt()
    return torch.where(deviation > MIN_DEVIATION, centred / deviation.clamp_min(MIN_DEVIATION), 0.0)


def uniform_mean_scores(attention: torch.Tensor) -> torch.Tensor:
    """Plain mean over the layers and heads that see a position, float32 ``[positions]``.

    Report it as ``UNCALIBRATED``.
    """
    return attention.float().nanmean(dim=(0, 1))


def pooled(scores: torch.Tensor, width: int, kind: PoolKind) -> torch.Tensor:
    """Centred pooling along positions; the ends pool over what is there. ``[positions]``."""
    row = scores[None, None]
    match kind:
        case PoolKind.AVERAGE:
            return avg_pool1d(row, width, 1, width // 2, count_include_pad=False)[0, 0]
        case PoolKind.MAXIMUM:
            return max_pool1d(row, width, 1, width // 2)[0, 0]

"""Selectors over the cloud model's own attention: plain mean and SnapKV-style pooling.

``attention`` is float32 ``[layers, heads, n]``, the question's rows averaged. The calibrated
choice is ``scout_core.selection.calibrated_scores``.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import max_pool1d

from scout_core.selection.scores import uniform_mean_scores

SNAP_WIDTH = 7
"""Max-pooling kernel of SnapKV (Li et al. 2024, section 4.1)."""


def mean_scores(attention: Tensor) -> Tensor:
    """Uniform mean over layers and heads."""
    return uniform_mean_scores(attention)


def snap_scores(attention: Tensor) -> Tensor:
    """SnapKV's vote, made one selection for all layers: max-pooled per layer and head, averaged.

    SnapKV keeps other positions in every head; one set for all is what a wire can carry as indices.
    """
    flat = attention.float().flatten(0, 1)
    return max_pool1d(flat[None], SNAP_WIDTH, 1, SNAP_WIDTH // 2)[0].mean(0)

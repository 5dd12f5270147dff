"""From scores to a selection: sorted indices of the context tokens to keep."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch

from scout_core.errors import EmptyInputError, RetentionError
from scout_core.selection.head_weights import PoolKind
from scout_core.selection.scores import pooled

Selection = npt.NDArray[np.int64]
"""Ascending context token indices in [0, n)."""
WIDEST_RUN = 5


def kept_count(tokens: int, retention: float) -> int:
    """Tokens kept of a context: the retention rounded up, at least one.

    Raises:
        RetentionError: retention outside (0, 1].
        EmptyInputError: no tokens.
    """
    if not 0.0 < retention <= 1.0:
        raise RetentionError(f"Retention must be in (0, 1], got {retention}.")
    if tokens < 1:
        raise EmptyInputError("There is no context to select from.")
    return min(tokens, math.ceil(tokens * retention - 1e-9))


def select_top(scores: torch.Tensor, retention: float) -> Selection:
    """The highest scores; of equal ones the earlier.

    Args:
        scores: ``[positions]``.

    Raises:
        RetentionError, EmptyInputError: as ``kept_count``.
    """
    count = kept_count(scores.shape[0], retention)
    order = torch.sort(scores.float().cpu(), descending=True, stable=True).indices
    return np.sort(order[:count].numpy())


def run_width(kept: int) -> int:
    """Over how many neighbours scores are averaged before ``kept`` positions are chosen: odd.

    A third of what is kept, at most 5: selections then come in runs, which a sparse prefill needs
    more than an eviction does. Chosen on the bundled pair's tuning articles (MODEL_CARD.md).
    """
    third = min(kept // 3, WIDEST_RUN)
    return max(1, third - (1 - third % 2))


def select_runs(scores: torch.Tensor, retention: float) -> Selection:
    """The highest scores after averaging over ``run_width`` neighbours; as many as ``select_top``.

    Args:
        scores: ``[positions]``.

    Raises:
        RetentionError, EmptyInputError: as ``kept_count``.
    """
    width = run_width(kept_count(scores.shape[0], retention))
    return select_top(pooled(scores.float().cpu(), width, PoolKind.AVERAGE), retention)

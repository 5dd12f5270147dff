"""From scores to a selection: sorted indices of the context tokens to keep."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch

from scout_core.errors import EmptyInputError, RetentionError

Selection = npt.NDArray[np.int64]
"""Ascending context token indices in [0, n)."""


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


def select_chunks(scores: torch.Tensor, retention: float, chunk: int) -> Selection:
    """Whole chunks of ``chunk`` neighbouring positions by mean score, cut to the exact count.

    The last chunk taken gives only its best positions, so that a retention costs the same with
    every selector.

    Raises:
        RetentionError, EmptyInputError: as ``kept_count``; RetentionError also for a chunk below 1.
    """
    if chunk < 1:
        raise RetentionError(f"A chunk has at least one position, got {chunk}.")
    values = scores.float().cpu()
    count = kept_count(values.shape[0], retention)
    means = torch.stack([part.mean() for part in values.split(chunk)])
    kept: list[int] = []
    for index in torch.sort(means, descending=True, stable=True).indices.tolist():
        members = values[index * chunk : (index + 1) * chunk]
        missing = count - len(kept)
        best = torch.sort(members, descending=True, stable=True).indices[:missing]
        kept.extend(index * chunk + offset for offset in best.tolist())
        if len(kept) == count:
            break
    return np.sort(np.asarray(kept, dtype=np.int64))

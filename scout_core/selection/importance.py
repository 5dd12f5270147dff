"""How much an error in a position's KV matters to a question: the weight that its bits follow.

What a head reads is the values at each position, weighted by its attention there. An error of one
in them moves what is read by that attention, so the squared error of the model's output grows with
its square, and an error in the keys moves the attention itself by at most as much. This module owns
that measure. It does not know how bits are spent on it (``scout_core.codec``), nor which positions
are kept (``selectors``).
"""

from __future__ import annotations

import torch


def attended_importance(attention: torch.Tensor) -> torch.Tensor:
    """Squared attention of the question's rows, mean over layers and heads.

    Args:
        attention: ``[layers, heads, positions]``, mean over the rows; NaN where a head cannot see.

    Returns:
        float32 ``[positions]``; 0 where no head sees.
    """
    return attention.float().square().flatten(0, 1).nanmean(dim=0).nan_to_num(0.0)
